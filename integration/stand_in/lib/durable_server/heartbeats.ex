defmodule DurableServer.Heartbeats do
  @moduledoc """
  The heartbeats of all nodes, as this node knows them: its cache of stored heartbeats, and those that arrive
  through Group. For each node the newer one counts.

  The cache is the ETS table `:"durable_server_heartbeats_NAME"` of
  `{node_string, node_ref, ts_ms, capacity, resources, env_vars, heartbeat_meta}`.
  """

  alias DurableServer.{Config, Eligibility, StorageBackend}

  @group_key "__heartbeat"
  @retries 100
  @deadline_margin_ms 2_000

  @doc "Stores, then caches and broadcasts this node's heartbeat. To be called by the process that is joined to Group."
  @spec beat(Config.t(), map()) :: :ok | {:error, term()}
  def beat(config, facts) do
    heartbeat =
      Map.merge(facts, %{
        node: Atom.to_string(node()),
        node_ref: config.node_ref,
        timestamp: System.system_time(:millisecond)
      })

    opts = [max_retries: @retries, timeout: config.heartbeat_staleness_threshold_ms - @deadline_margin_ms]
    key = storage_key(config, heartbeat.node)

    # A heartbeat that is not stored is not sent to any node and not cached.
    with {:ok, _object} <- StorageBackend.put_object(config.heartbeat_backend, key, to_stored(heartbeat), opts) do
      cache(config, heartbeat)
      :ok = Group.join(config.name, @group_key, heartbeat)
    end
  end

  @doc "Reads every stored heartbeat into the cache. A node whose object is gone stays in it: its heartbeat becomes too old."
  @spec reconcile(Config.t()) :: :ok
  def reconcile(config) do
    opts = [include_objects: true, error_handler: fn _reason -> :continue end]

    for entry <- StorageBackend.list_all_objects_stream(config.heartbeat_backend, storage_key(config, ""), opts),
        {:ok, body} <- [body(config, entry)],
        do: cache(config, from_stored(body))

    :ok
  end

  @doc "The stored heartbeat of a node."
  @spec read(Config.t(), String.t()) :: {:ok, map()} | {:error, :not_found | term()}
  def read(config, node_str) do
    with {:ok, %{body: body}} <-
           StorageBackend.get_object(config.heartbeat_backend, storage_key(config, node_str), consistent: true),
         do: {:ok, from_stored(body)}
  end

  @doc "All heartbeats: one or two for each node."
  @spec all(Config.t()) :: [map()]
  def all(config), do: cached(config) ++ for({_pid, heartbeat} <- Group.members(config.name, @group_key), do: heartbeat)

  @doc "The newest heartbeat of every node that is not from the future."
  @spec newest(Config.t()) :: %{String.t() => map()}
  def newest(config), do: newest_of(all(config), config)

  @doc "As `newest/1`, from the stored heartbeats alone."
  @spec cached_newest(Config.t()) :: %{String.t() => map()}
  def cached_newest(config), do: newest_of(cached(config), config)

  defp newest_of(heartbeats, config),
    do: Eligibility.newest(heartbeats, System.system_time(:millisecond), config.heartbeat_future_skew_tolerance_ms)

  defp cached(config) do
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
  end

  @doc "The key of a node's heartbeat; with an empty name, the prefix of all of them."
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

  # Listed with its body where the backend can.
  defp body(_config, %{body: body}), do: {:ok, body}

  defp body(config, %{key: key}) do
    with {:ok, %{body: body}} <- StorageBackend.get_object(config.heartbeat_backend, key, consistent: false),
         do: {:ok, body}
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
      capacity: capacity(stored["capacity"]),
      resources: resources(stored["resources"]),
      env_vars: stored["env_vars"] || %{},
      heartbeat_meta: stored["heartbeat_meta"]
    }
  end

  defp strings(%{} = map), do: Map.new(map, fn {key, value} -> {to_string(key), strings(value)} end)
  defp strings(other), do: other

  # A limit of a module that is unknown on this node makes all limits unknown.
  defp capacity(nil), do: nil

  defp capacity(limits) do
    for {name, %{"current" => current, "limit" => limit}} <- limits,
        into: %{},
        do: {String.to_existing_atom(name), %{current: current, limit: limit}}
  rescue
    ArgumentError -> nil
  end

  # Without the disk, which is only in heartbeats through Group.
  defp resources(nil), do: nil

  defp resources(stored) do
    known = for name <- [:cpu, :max_cpu, :memory, :max_memory], value = stored[Atom.to_string(name)], do: {name, value}
    if known == [], do: nil, else: Map.new(known)
  end
end
