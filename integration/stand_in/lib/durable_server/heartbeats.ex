defmodule DurableServer.Heartbeats do
  @moduledoc """
  What this node knows of all nodes: its cache of stored heartbeats, and those that arrive through Group. Per node the
  newer counts.

  The cache is the ETS table `:"durable_server_heartbeats_NAME"` of
  `{node_string, node_ref, ts_ms, capacity, resources, env_vars, heartbeat_meta}`.
  """

  alias DurableServer.{Config, Eligibility}

  @group_key "__heartbeat"

  @doc "Stores, caches and broadcasts this node's heartbeat. To be called by the process that is joined to Group."
  @spec beat(Config.t(), map()) :: :ok | {:error, term()}
  def beat(config, facts) do
    heartbeat =
      Map.merge(facts, %{
        node: Atom.to_string(node()),
        node_ref: config.node_ref,
        timestamp: System.system_time(:millisecond)
      })

    cache(config, heartbeat)
    :ok = Group.join(config.name, @group_key, heartbeat)
    {module, state} = config.heartbeat_backend

    with {:ok, _object} <-
           module.put_object(state, storage_key(config, heartbeat.node), to_stored(heartbeat), max_retries: 3),
         do: :ok
  end

  @doc """
  Reads every stored heartbeat into the cache and forgets nodes whose object is gone. A listing that failed forgets nobody.
  """
  @spec reconcile(Config.t()) :: :ok
  def reconcile(config) do
    {module, state} = config.heartbeat_backend
    failed = make_ref()
    parent = self()

    on_error = fn reason ->
      send(parent, {failed, reason})
      :halt
    end

    keys =
      state
      |> module.list_all_objects_stream(storage_key(config, ""), consistent: true, error_handler: on_error)
      |> Enum.map(& &1.key)

    for key <- keys,
        {:ok, %{body: body}} <- [module.get_object(state, key, consistent: true)],
        do: cache(config, from_stored(body))

    receive do
      {^failed, _reason} -> :ok
    after
      0 -> prune(config, keys)
    end
  end

  @doc "All heartbeats, one or two a node."
  @spec all(Config.t()) :: [map()]
  def all(config) do
    cached =
      for {node, node_ref, timestamp, capacity, resources, env_vars, meta} <- :ets.tab2list(config.heartbeat_table) do
        %{
          node: node,
          node_ref: node_ref,
          timestamp: timestamp,
          capacity: capacity,
          resources: resources,
          env_vars: env_vars,
          heartbeat_meta: meta
        }
      end

    cached ++ for({_pid, heartbeat} <- Group.members(config.name, @group_key), do: heartbeat)
  end

  @doc "The newest believable heartbeat of every node."
  @spec newest(Config.t()) :: %{String.t() => map()}
  def newest(config),
    do: Eligibility.newest(all(config), System.system_time(:millisecond), config.heartbeat_future_skew_tolerance_ms)

  @doc "Where a node's heartbeat is stored; with an empty name the prefix of all."
  @spec storage_key(Config.t(), String.t()) :: String.t()
  def storage_key(config, node_str), do: config.prefix <> "__nodes/" <> node_str

  defp cache(config, heartbeat) do
    case :ets.lookup(config.heartbeat_table, heartbeat.node) do
      [row] when elem(row, 2) > heartbeat.timestamp ->
        true

      _older_or_none ->
        row =
          {heartbeat.node, heartbeat.node_ref, heartbeat.timestamp, heartbeat.capacity, heartbeat.resources,
           heartbeat.env_vars, heartbeat.heartbeat_meta}

        :ets.insert(config.heartbeat_table, row)
    end
  end

  defp prune(config, keys) do
    stored = MapSet.new(keys)

    for {node, _, _, _, _, _, _} <- :ets.tab2list(config.heartbeat_table),
        storage_key(config, node) not in stored and node != Atom.to_string(node()),
        do: :ets.delete(config.heartbeat_table, node)

    :ok
  end

  # The stored form has string keys throughout and leaves out what is not known.

  defp to_stored(heartbeat) do
    known = %{
      "capacity" => strings(heartbeat.capacity),
      "resources" => strings(heartbeat.resources),
      "env_vars" => heartbeat.env_vars,
      "heartbeat_meta" => heartbeat.heartbeat_meta
    }

    for {key, value} <- known, value != nil, into: base(heartbeat), do: {key, value}
  end

  defp base(heartbeat),
    do: %{"node" => heartbeat.node, "node_ref" => heartbeat.node_ref, "last_heartbeat_at" => heartbeat.timestamp}

  defp from_stored(stored) do
    %{
      node: stored["node"],
      node_ref: stored["node_ref"],
      timestamp: stored["last_heartbeat_at"],
      capacity: atoms(stored["capacity"], fn limit -> atoms(limit, & &1) end),
      resources: atoms(stored["resources"], & &1),
      env_vars: stored["env_vars"],
      heartbeat_meta: stored["heartbeat_meta"]
    }
  end

  defp strings(%{} = map), do: Map.new(map, fn {key, value} -> {to_string(key), strings(value)} end)
  defp strings(other), do: other

  # Names are those of modules and limits of nodes of the same application.
  defp atoms(nil, _value), do: nil
  defp atoms(map, value), do: Map.new(map, fn {key, inner} -> {String.to_atom(key), value.(inner)} end)
end
