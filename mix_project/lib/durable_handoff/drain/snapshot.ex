defmodule DurableHandoff.Drain.Snapshot do
  @moduledoc false
  # The data that a drain starts from: the servers of this node that are to move, numbered, and all that the
  # engine has to know about them.
  #
  # Guarantee: taken once, without reading the store (except for `eligible: :permanent`, see
  # `DurableHandoff.Policy`). Only what it knows of other nodes changes (`refresh/1`, `answered/3`, `lost/2`).
  # The engine knows a server only by its number; the way back to key, module and pid is `server/2`.

  alias DurableHandoff.{Clock, Deadline, Host, Log, Options, Policy}
  alias DurableHandoff.Drain.Peers

  # The default wait of a drain without targets for nodes that were lost or are not connected.
  @wait_for_lost_ms 5_000

  @enforce_keys [:supervisor, :servers, :entries, :excluded, :modules, :stickies, :counts, :asked]
  defstruct @enforce_keys ++ [:source, :view, :only, :rebalance, lately: [], late: []]

  @type t :: %__MODULE__{
          supervisor: Host.name(),
          servers: tuple(),
          entries: [{module :: non_neg_integer(), sticky :: non_neg_integer(), priority :: integer()}],
          excluded: [Host.server()],
          modules: [module()],
          stickies: [[Host.sticky_level()]],
          counts: Host.Count.t(),
          asked: MapSet.t(String.t()),
          late: [String.t()],
          source: map(),
          view: Host.View.t(),
          only: nil | String.t(),
          rebalance: nil | DurableHandoff.Rebalance.Settings.t(),
          lately: [Host.server()]
        }

  @typedoc """
  A move: one server to a given node or to the best one (nil). A rebalance: the servers above this node's
  share, without those that arrived recently. A drain: all servers that the policy allows.
  """
  @type scope ::
          {:move, Host.server(), target :: nil | String.t()}
          | {:rebalance, DurableHandoff.Rebalance.Settings.t()}
          | atom()

  @doc "Takes the snapshot of the supervisor `name`, within the time limits that `deadline` has for it."
  @spec take(Host.name(), Options.t(), Deadline.t(), scope()) :: t()
  def take(name, %Options{} = options, %Deadline{} = deadline, scope \\ :all) do
    {moving, excluded} = select(scope, name, options, deadline)
    {lately, moving} = split_lately(scope, moving)
    {modules, stickies, entries} = for_engine(name, moving)
    {asked, late, counts} = counts(name, modules, deadline, scope)

    snapshot = %__MODULE__{
      supervisor: name,
      only: with({:move, _server, target} <- scope, do: target, else: (_ -> nil)),
      rebalance: with({:rebalance, settings} <- scope, do: settings, else: (_ -> nil)),
      servers: moving |> Enum.map(fn {server, _priority} -> server end) |> List.to_tuple(),
      entries: entries,
      excluded: excluded,
      lately: lately,
      modules: modules,
      stickies: stickies,
      counts: counts,
      asked: asked,
      late: late
    }

    view = current_view(snapshot)
    %{snapshot | view: view, source: source(name, options, view)}
  end

  @doc "The snapshot in which the servers with these pids move after all others, whatever their priority."
  @spec put_last(t(), [pid()]) :: t()
  def put_last(snapshot, []), do: snapshot

  def put_last(%__MODULE__{} = snapshot, pids) do
    last = MapSet.new(pids)

    entries =
      for {%{pid: pid}, {module, sticky, priority}} <- Enum.zip(Tuple.to_list(snapshot.servers), snapshot.entries),
          do: {module, sticky, if(pid in last, do: Options.lowest_priority(), else: priority)}

    %{snapshot | entries: entries}
  end

  @doc "The server with that number."
  @spec server(t(), non_neg_integer()) :: Host.server()
  def server(%__MODULE__{servers: servers}, id), do: elem(servers, id)

  @doc "How many servers are to move."
  @spec size(t()) :: non_neg_integer()
  def size(%__MODULE__{servers: servers}), do: tuple_size(servers)

  @doc "Whether it has all servers that run here as these processes (`DurableHandoff.Host.processes/1`)."
  @spec complete?(t(), [pid()]) :: boolean()
  def complete?(%__MODULE__{} = snapshot, processes) do
    known = Tuple.to_list(snapshot.servers) ++ snapshot.excluded ++ snapshot.lately
    processes -- Enum.map(known, & &1.pid) == []
  end

  @doc """
  The snapshot with `view` as the new state of the cluster. Known nodes that `view` lacks stay, as not
  connected.
  """
  @spec refresh(t()) :: t()
  def refresh(%__MODULE__{} = snapshot),
    do: %{snapshot | view: Peers.with_lost(current_view(snapshot), snapshot.view)}

  @doc """
  Adds the answers of `nodes` that were asked again (`DurableHandoff.Drain.Peers`), without those that have gone
  since they answered. The numbers of servers stay those of the first answer, because the engine has counted its own
  moves since then.
  """
  @spec answered(t(), [String.t()], Host.Count.t()) :: t()
  def answered(%__MODULE__{} = snapshot, nodes, answers) do
    nodes = nodes |> Host.connected() |> names()

    counts =
      Enum.reduce(Map.take(answers, nodes), snapshot.counts, fn {name, answer}, counts ->
        Map.update(counts, name, answer, &Map.merge(&1, Map.take(answer, [:stopping, :missing])))
      end)

    %{snapshot | counts: counts, asked: MapSet.union(snapshot.asked, MapSet.new(nodes))}
  end

  @doc """
  Removes a node that is gone. If it comes back it is asked again before servers go there, because it may run
  another release.
  """
  @spec lost(t(), String.t()) :: t()
  def lost(%__MODULE__{} = snapshot, name),
    do: %{snapshot | counts: Map.delete(snapshot.counts, name), asked: MapSet.delete(snapshot.asked, name)}

  @doc "The engine's configuration for a drain of these servers that has `timeout_ms` left."
  @spec engine_config(t(), Options.t(), pos_integer()) :: map()
  def engine_config(%__MODULE__{} = snapshot, %Options{} = options, timeout_ms) do
    options
    |> Options.engine()
    |> Map.merge(%{
      timeout_ms: timeout_ms,
      attempt_timeout_ms: min(options.attempt_timeout_ms, timeout_ms),
      wait_for_target_ms: min(options.wait_for_target_ms || 0, timeout_ms),
      wait_for_lost_ms: min(wait_for_lost_ms(snapshot, options.wait_for_target_ms), timeout_ms),
      source: snapshot.source,
      stickies: snapshot.stickies,
      modules: length(snapshot.modules),
      future_skew_ms: Host.future_skew_ms(snapshot.supervisor),
      max_age_ms: Host.max_heartbeat_age_ms()
    })
    |> Map.merge(goal(snapshot.rebalance))
  end

  # A late node is asked again at once, until it answers or is silent. Without another target a move waits for that.
  defp wait_for_lost_ms(_snapshot, nil), do: @wait_for_lost_ms
  defp wait_for_lost_ms(%{late: []}, wait_ms), do: wait_ms
  defp wait_for_lost_ms(_snapshot, wait_ms), do: max(wait_ms, Peers.silent_ms())

  # Servers that arrived within `after_ms`, by a move or as new ones, stay: a server is not moved twice in a row.
  defp split_lately({:rebalance, %{after_ms: after_ms}}, moving) do
    latest_ms = System.system_time(:millisecond) - after_ms

    {lately, moving} =
      Enum.split_with(moving, fn {server, _priority} -> server.since_ms != nil and server.since_ms > latest_ms end)

    {Enum.map(lately, fn {server, _priority} -> server end), moving}
  end

  defp split_lately(_scope, moving), do: {[], moving}

  # An operator who names a server overrides the policy.
  defp select({:move, server, _target}, _name, _options, _deadline), do: {[{server, 0}], []}

  defp select(_all, name, options, deadline) do
    decided = Policy.decide_each(Host.servers(name), options, Deadline.policy_ms(deadline, Clock.now_us()))
    report(name, for({server, {_decision, problem}} when problem != nil <- decided, do: {server, problem}))
    temporary = temporary(decided, name, options, deadline)

    Enum.reduce(Enum.reverse(decided), {[], []}, fn
      {server, {{:move, priority}, _problem}}, {moving, excluded} ->
        {[{server, priority} | moving], excluded}

      {server, {{:ask_store, priority}, _problem}}, {moving, excluded} ->
        if server.key in temporary,
          do: {moving, [server | excluded]},
          else: {[{server, priority} | moving], excluded}

      {server, {:stay, _problem}}, {moving, excluded} ->
        {moving, [server | excluded]}
    end)
  end

  # A hundred thousand servers with the same mistake are one line in the log.
  defp report(_supervisor, []), do: :ok

  defp report(supervisor, [{server, problem} | _] = problems) do
    text =
      "the handoff policy was ignored for #{length(problems)} servers; the first: " <>
        "#{inspect(server.module)} #{inspect(server.key)}: #{problem}"

    Log.warning(:policy_ignored, supervisor, text, servers: length(problems), key: server.key, problem: problem)
  end

  # The keys of the servers that are not permanent according to the store.
  defp temporary(decided, name, options, deadline) do
    decided
    |> Stream.filter(&match?({_server, {{:ask_store, _priority}, _problem}}, &1))
    |> Stream.map(fn {server, _decision} -> server.key end)
    |> Host.info_each(name, options.max_concurrency, Deadline.policy_ms(deadline, Clock.now_us()))
    |> Enum.flat_map(fn {key, info} -> if match?({:ok, %{permanent: false}}, info), do: [key], else: [] end)
    |> MapSet.new()
  end

  # The engine knows servers, modules and sticky levels by number.
  defp for_engine(name, moving) do
    modules = for {server, _priority} <- moving, uniq: true, do: server.module
    sticky_of = Map.new(modules, &{&1, Host.sticky_levels(name, &1)})
    stickies = sticky_of |> Map.values() |> Enum.uniq()
    {module_index, sticky_index} = {index(modules), index(stickies)}

    entries =
      for {%{module: module}, priority} <- moving,
          do: {module_index[module], sticky_index[sticky_of[module]], priority}

    {modules, stickies, entries}
  end

  # Contains only what the planner needs for these servers. A node counts as connected only after it has
  # answered, even if it does not know the request; in the first view also if it had less than half a second
  # to answer.
  defp current_view(%{supervisor: name, modules: modules} = snapshot) do
    variables = for levels <- snapshot.stickies, {:env, variable, _value, _delay} <- levels, uniq: true, do: variable
    view = Host.View.build(name, modules, variables, snapshot.counts)

    %{view | nodes: for(node <- view.nodes, do: %{node | connected: node.connected and node.name in snapshot.asked})}
    |> restrict(snapshot.only)
    |> for_shares(snapshot)
  end

  defp restrict(view, nil), do: view
  defp restrict(view, only), do: %{view | nodes: Enum.filter(view.nodes, &(&1.name in [only, Atom.to_string(node())]))}

  # The excess of this node is computed from the servers that really run here, and its mark is the current one. A node
  # without such a supervisor has no share, and a rebalance need not wait for it; nor for a node that takes no servers
  # and has none, such as a web node. One that had a share at the start keeps it: servers may be on their way there.
  defp for_shares(view, %{rebalance: nil}), do: view

  defp for_shares(view, %{supervisor: name, modules: modules} = snapshot) do
    own = Atom.to_string(node())
    answer = Host.Count.here(name, [])
    view = if answer, do: Host.View.recount(view, own, answer, modules), else: view
    without = Host.Count.absent(snapshot.counts)
    with_share = [own | for(node <- (snapshot.view || %{nodes: []}).nodes, do: node.name)]
    no_share? = &(&1.name in without or (&1.draining and &1.servers == 0 and &1.name not in with_share))
    %{view | nodes: Enum.reject(view.nodes, no_share?)}
  end

  # Only nodes with a heartbeat and a connection can become targets. A rebalance also needs to know whether
  # draining nodes still have servers.
  defp counts(name, modules, deadline, scope) do
    view = Host.View.build(name, [], [], %{})
    known = if match?({:rebalance, _settings}, scope), do: Enum.map(view.nodes, & &1.name), else: Peers.in_reach(view)
    connected = Host.connected(known)
    ask_ms = Deadline.ask_ms(deadline, Clock.now_us())
    patience_ms = if ask_ms >= Peers.late_ms(), do: patience_ms(scope), else: 0
    {counts, late} = Peers.ask(name, modules, connected, ask_ms, Clock.after_ms(patience_ms))
    late = if ask_ms >= Peers.late_ms(), do: late, else: []
    {MapSet.new(names(connected) -- late), late, counts}
  end

  # A drain and a move ask late nodes again while they run (`Peers`). A plan is made once, and a rebalance ends when the
  # nodes that have answered have their shares.
  defp patience_ms(:all), do: Peers.silent_ms()
  defp patience_ms({:rebalance, _settings}), do: Peers.silent_ms()
  defp patience_ms(_drain_or_move), do: 0

  defp names(nodes), do: Enum.map(nodes, &Atom.to_string/1)

  defp source(name, options, view) do
    own_name = Atom.to_string(node())

    %{
      name: own_name,
      started_at_ms: Host.started_at_ms(name),
      generation: options.generation,
      region: Enum.find_value(view.nodes, &(&1.name == own_name && &1.region))
    }
  end

  defp goal(nil), do: %{}

  defp goal(%{tolerance: tolerance, min_servers: min_servers}),
    do: %{
      goal: :rebalance,
      tolerance: tolerance * 1.0,
      min_servers: min_servers,
      wait_for_target_ms: 0,
      wait_for_lost_ms: 0
    }

  defp index(list), do: list |> Enum.with_index() |> Map.new()
end
