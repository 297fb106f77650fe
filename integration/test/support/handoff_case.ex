defmodule HandoffCase do
  @moduledoc """
  A test of the library on peer nodes: `ClusterCase`, with supervisors that hand off.

      use HandoffCase, nodes: 3

  `start_handoff/3` starts a `DurableHandoff.Supervisor` on one node, `start_cluster/2` one on every node.
  """

  use ExUnit.CaseTemplate

  import ExUnit.Assertions

  using opts do
    quote do
      use ClusterCase, unquote(opts)
      import HandoffCase
      import HandoffCase.Listening

      setup context, do: end_with_test(context)
    end
  end

  @doc "The context of a test with another supervisor, on the same store."
  @spec another_supervisor(map()) :: map()
  def another_supervisor(context) do
    [name: sup, prefix: prefix] = Cluster.unique_options()
    %{context | sup: sup, opts: Keyword.merge(context.opts, name: sup, prefix: prefix)}
  end

  @doc "Starts the test's supervisor with handoff on `node`, and the children in `after:`. Returns their application."
  @spec start_handoff(map(), node(), keyword()) :: atom()
  def start_handoff(context, node, opts \\ []) do
    {followers, opts} = Keyword.pop(opts, :after, [])
    opts = context.opts |> Keyword.put(:handoff_on_shutdown, true) |> Keyword.merge(opts)
    {:ok, app} = Cluster.start_children(node, [{DurableHandoff.Supervisor, opts} | followers])
    Cluster.wait_until(fn -> Cluster.call(node, DurableServer.Supervisor, :ready?, [opts[:name]]) end)
    # A drain begins without a node that does not answer within half a second, and the first answer loads code.
    %{at_ms: _} = Cluster.call(node, DurableHandoff.Host.Count, :here, [opts[:name], []])
    app
  end

  @doc "The same on every node of the test. Waits until each knows all others."
  @spec start_cluster(map(), keyword()) :: [atom()]
  def start_cluster(context, opts \\ []) do
    apps = for node <- context.nodes, do: start_handoff(context, node, opts)
    Cluster.await_heartbeats(context.nodes, opts[:name] || context.sup)
    apps
  end

  @doc "Starts `count` servers on `node`. Returns their keys."
  @spec start_servers(map(), node(), pos_integer(), module(), map()) :: [String.t()]
  def start_servers(context, node, count, module \\ Servers.Counter, state \\ %{}) do
    for n <- 1..count do
      key = "s#{n}"
      ClusterCase.start_server(context, node, module, key, state)
      key
    end
  end

  @doc "As `start_servers/3`, with servers whose count of 1 is not stored yet."
  @spec start_unsynced(map(), node(), pos_integer()) :: [String.t()]
  def start_unsynced(context, node, count) do
    keys = start_servers(context, node, count)
    for key <- keys, do: 1 = Cluster.ask(ClusterCase.whereis(context, node, key), :add)
    keys
  end

  @doc """
  Starts a node whose clock the test stops (`FrozenClock`): for good, so no other test uses it. Returns the node, and
  the context with it before `others`. `opts`: see `Cluster.start_node/1`.
  """
  @spec with_own_clock(map(), [node()], keyword()) :: {node(), map()}
  def with_own_clock(context, others, opts \\ []) do
    node = Cluster.start_node(opts)
    {node, %{context | nodes: [node | others]}}
  end

  @doc "The stored count of a server of `Servers.Counter`."
  @spec count_stored(map(), String.t()) :: non_neg_integer()
  def count_stored(context, key), do: ClusterCase.stored(context, key).state["count"]

  @doc "Fails unless each of `keys`, servers of `Servers.Counter`, runs with this count."
  @spec assert_counts(map(), [String.t()], non_neg_integer()) :: :ok
  def assert_counts(context, keys, count) do
    placement = placement(context)

    for key <- keys do
      node = Map.fetch!(placement, key)
      assert {key, Cluster.ask(ClusterCase.await_on(context, node, key, node), :get)} == {key, count}
    end

    :ok
  end

  @doc """
  `DurableHandoff.drain/2` on `node`. The call itself has no timeout: the drain's `timeout_ms` and the test's
  timeout bound it.
  """
  @spec drain(map(), node(), keyword()) :: term()
  def drain(context, node, overrides \\ []),
    do: Cluster.call(node, DurableHandoff, :drain, [context.sup, overrides], :infinity)

  @doc """
  A drain of `node` in which each server starts only when `targets` have received its stop. One that has not, for a third
  of a second, would count as a target that has failed.
  """
  @spec drain_heard(map(), node(), [node()]) :: term()
  def drain_heard(context, node, targets) do
    hold_reads(context, "")
    result = let_through(context, node, targets, Task.async(fn -> drain(context, node) end))
    SimulatedStore.resume(context.store)
    result
  end

  defp let_through(context, source, targets, draining) do
    with nil <- Task.yield(draining, 10) do
      for {:get, key} = read <- SimulatedStore.paused(context.store),
          Enum.all?(targets, &heard?(context, source, &1, key)),
          do: SimulatedStore.step(context.store, read)

      let_through(context, source, targets, draining)
    else
      {:ok, result} -> result
    end
  end

  # Sweeps read servers that run, too.
  defp heard?(context, source, target, storage_key) do
    pid = ClusterCase.whereis(context, target, key(context, storage_key))
    pid == nil or node(pid) != source or Cluster.call(source, Process, :alive?, [pid])
  end

  defp key(context, storage_key), do: String.replace_prefix(storage_key, context.opts[:prefix], "")

  @doc "`DurableHandoff.status/1` on `node`."
  @spec status(map(), node()) :: {:ok, map()} | {:error, term()}
  def status(context, node), do: Cluster.call(node, DurableHandoff, :status, [context.sup])

  @doc "The nodes that DurableServer on `node` would place a `Servers.Counter` on."
  @spec eligible(map(), node()) :: [node()]
  def eligible(context, node) do
    arguments = [context.sup, Servers.Counter, [limit: 9]]
    Cluster.call(node, DurableServer.LifecycleManager, :find_eligible_nodes, arguments)
  end

  @doc "How many servers run on `node`, by its own list."
  @spec running_on(map(), node()) :: non_neg_integer()
  def running_on(context, node), do: length(Cluster.call(node, DurableHandoff.Host, :servers, [context.sup]))

  @doc "Holds the reads of servers whose keys begin with `prefix`, on every node."
  @spec hold_reads(map(), String.t()) :: :ok
  def hold_reads(context, prefix \\ "s"), do: hold(context, [:get], prefix)

  @doc "Holds requests of the kinds `ops` for servers whose keys begin with `prefix`, on every node."
  @spec hold(map(), [:get | :put], String.t()) :: :ok
  def hold(context, ops, prefix \\ "s") do
    prefix = ClusterCase.storage_key(context, prefix)
    SimulatedStore.pause(context.store, fn op, key -> op in ops and String.starts_with?(key, prefix) end)
  end

  @doc """
  Holds the reads of servers whose keys begin with "s" after those of the first `count`, on every node: these move, and
  later ones are stopped and not started anywhere. Once for each store.
  """
  @spec hold_after(map(), pos_integer()) :: :ok
  def hold_after(context, count) do
    prefix = ClusterCase.storage_key(context, "s")

    # The process of the store calls this.
    SimulatedStore.pause(context.store, fn op, key ->
      if op == :get and String.starts_with?(key, prefix) do
        let_through = Enum.take(Enum.uniq(Process.get(:let_through, []) ++ [key]), count)
        Process.put(:let_through, let_through)
        key not in let_through
      end
    end)
  end

  @doc """
  Holds reads of servers whose keys begin with `prefix`, as if the store did not answer. The task is such a read, the
  first: it ends, with an error, before any other.
  """
  @spec held_read(map(), String.t()) :: Task.t()
  def held_read(context, prefix \\ "k") do
    hold_reads(context, prefix)
    key = ClusterCase.storage_key(context, prefix)
    read = Task.async(fn -> SimulatedStore.get_object(ClusterCase.place(context), key, timeout: 20_000) end)
    await_held(context, 1)
    read
  end

  @doc """
  Holds reads of servers whose keys begin with `prefix`, starts `work`, and waits until `count` moves are held
  at their reads. Returns the task.
  """
  @spec start_held(map(), pos_integer(), (() -> term()), String.t()) :: Task.t()
  def start_held(context, count, work, prefix \\ "s") do
    hold_reads(context, prefix)
    task = Task.async(work)
    await_held(context, count)
    task
  end

  @doc "Waits until exactly `count` requests are held in the store."
  @spec await_held(map(), pos_integer()) :: :ok
  def await_held(context, count), do: Cluster.wait_for(count, fn -> length(SimulatedStore.paused(context.store)) end)

  @doc "The number of callers that wait for the drain on `node`."
  @spec drain_waiters(map(), node()) :: non_neg_integer()
  def drain_waiters(context, node) do
    {:ok, %{waiting: waiting}} = status(context, node)
    waiting
  end

  @doc """
  Waits until `node`'s registry shows that the server has left `source`, and returns the new pid. Each node
  learns that at another time.
  """
  @spec await_moved(map(), node(), String.t(), node()) :: pid()
  def await_moved(context, node, key, source) do
    Cluster.wait_until(fn ->
      pid = ClusterCase.whereis(context, node, key)
      if pid && node(pid) != source, do: pid
    end)
  end

  @doc "As `start_servers/3`, and waits until the registries of `knowers` have all of them."
  @spec start_known(map(), node(), pos_integer(), node() | [node()]) :: [String.t()]
  def start_known(context, node, count, knowers) do
    keys = start_servers(context, node, count)
    for knower <- List.wrap(knowers), key <- keys, do: ClusterCase.await_on(context, knower, key, node)
    keys
  end

  @doc """
  Waits until `nodes`, which know the servers (`start_known/4`), have received the stop of all servers whose
  reads are held. Before that they refuse to start them.
  """
  @spec await_heard(map(), node() | [node()]) :: :ok
  def await_heard(context, nodes) do
    for {:get, storage_key} <- SimulatedStore.paused(context.store),
        node <- List.wrap(nodes),
        do: ClusterCase.await_none(context, node, key(context, storage_key))

    :ok
  end

  @doc """
  Every key with the node that runs it, from each node's own list. A key that runs twice fails the test.
  """
  @spec placement(map(), [node()]) :: %{String.t() => node()}
  def placement(context, nodes \\ nil) do
    running =
      for node <- nodes || context.nodes,
          key <- Cluster.call(node, __MODULE__, :alive, [context.sup]),
          do: {key, node}

    assert running -- Enum.uniq_by(running, &elem(&1, 0)) == [], "servers that run twice"
    Map.new(running)
  end

  @doc "The keys of the supervisor's servers that run on this node."
  @spec alive(atom()) :: [String.t()]
  def alive(sup), do: for(%{key: key, pid: pid} <- DurableHandoff.Host.servers(sup), Process.alive?(pid), do: key)

  @doc "The keys that are reserved for a node in the store."
  @spec reservations(map()) :: [String.t()]
  def reservations(context) do
    for storage_key <- SimulatedStore.keys(context.store),
        %{body: %{meta: %{restart_attempt_node: owner}}} <- [SimulatedStore.peek(context.store, storage_key)],
        owner != nil,
        do: String.replace_prefix(storage_key, context.opts[:prefix], "")
  end

  @doc "The row of the newest heartbeat of `of` in DurableServer's table on `node`."
  @spec heartbeat_row(map(), node(), node()) :: tuple()
  def heartbeat_row(context, node, of) do
    name = Atom.to_string(of)
    members = Cluster.call(node, Group, :members, [context.sup, "__heartbeat"])
    [beat] = for {_pid, %{node: ^name} = beat} <- members, do: beat
    {name, beat.node_ref, beat.timestamp, beat.capacity, beat.resources, beat.env_vars, beat.heartbeat_meta}
  end

  @doc "Replaces a heartbeat in the table of `node` with `row`, changed to the given age."
  @spec put_row(map(), node(), tuple(), integer()) :: true
  def put_row(context, node, row, age_ms) do
    row = put_elem(row, 2, System.system_time(:millisecond) - age_ms)
    Cluster.call(node, :ets, :insert, [:"durable_server_heartbeats_#{context.sup}", row])
  end

  @doc """
  Makes the node of `row` look as if it had been silent for a minute, in the store and in the tables of
  `nodes`, which accept no newer heartbeat.
  """
  @spec expire(map(), [node()], tuple()) :: :ok
  def expire(context, nodes, row) do
    :ok = ClusterCase.put_heartbeat(context, elem(row, 0), 60_000, %{"node_ref" => elem(row, 1)})
    for node <- nodes, do: put_row(context, node, row, 60_000)
    :ok
  end

  @doc "Waits until each of `keys`, servers of `Servers.Counter`, runs when it is started on request on `node`."
  @spec await_startable(map(), node(), [String.t()]) :: :ok
  def await_startable(context, node, keys) do
    for key <- keys,
        do: Cluster.wait_until(fn -> match?({:ok, _}, ClusterCase.ensure_started(context, node, key)) end)

    :ok
  end

  @doc "Fails if a server runs twice, one of `keys` does not run on `nodes`, or anything is reserved."
  @spec assert_all_run_on(map(), [String.t()], [node()]) :: true
  def assert_all_run_on(context, keys, nodes) do
    placement = placement(context)
    assert Enum.sort(Map.keys(placement)) == Enum.sort(keys)
    for {key, node} <- placement, do: assert(node in nodes, "#{key} runs on #{node}")
    assert reservations(context) == []
  end

  @doc """
  Waits until `keys` run on `nodes`. Fails if one runs twice, or anything is reserved in the end. For servers
  that a shutdown leaves and other nodes start afterwards.
  """
  @spec await_all_on(map(), [String.t()], [node()]) :: true
  def await_all_on(context, keys, nodes) do
    Cluster.wait_for([], fn -> keys -- Map.keys(placement(context, nodes)) end)
    assert Enum.sort(keys) == Enum.sort(Map.keys(placement(context, nodes)))
    assert reservations(context) == []
  end

  @doc "The pids on `node` that belong to a drain: processes that were started in one of `modules`."
  @spec drain_processes(node(), [module()]) :: [pid()]
  def drain_processes(node, modules \\ [DurableHandoff.Drain, DurableHandoff.Drain.Attempt]) do
    for {pid, module} <- Cluster.call(node, __MODULE__, :library_processes, []), module in modules, do: pid
  end

  @doc """
  Ends everything that the test started on its nodes. Processes of a drain, tables and registered names of the
  library have to end by themselves before that, while the store still answers. If they do not, they are a
  leak, and the test fails.
  """
  @spec end_with_test(map()) :: :ok
  def end_with_test(%{nodes: nodes, store: store} = context) do
    ExUnit.Callbacks.on_exit(fn ->
      SimulatedStore.configure(store, outage: :none, error_rate: 0.0, latency_ms: 0)
      SimulatedStore.resume(store)
      nodes = Enum.filter(nodes, &(&1 in Node.list()))
      for node <- nodes, do: Servers.Troublesome.disarm_all(node)
      for node <- nodes, do: Cluster.call(node, __MODULE__, :kill_applications, [])
      for node <- nodes, do: await_nothing_left(node, context.sup)
    end)
  end

  defp await_nothing_left(node, sup) do
    Cluster.wait_until(fn -> left_behind(node, sup) == [] end)
  rescue
    ExUnit.AssertionError -> flunk("left on #{node} by this test: #{inspect(left_behind(node, sup))}")
  end

  # The processes are killed: a stop would drain.
  @doc false
  @spec kill_applications() :: :ok
  def kill_applications do
    masters =
      for {app, _description, _vsn} <- :application.which_applications(:infinity),
          match?({:ok, {Cluster.Application, _children}}, :application.get_key(app, :mod)),
          master when is_pid(master) <- [:application_controller.get_master(app)],
          do: {:group_leader, master}

    # All processes of an application, including its master, have the master as their group leader.
    for pid <- Process.list(), Process.info(pid, :group_leader) in masters, do: Process.exit(pid, :kill)
    :ok
  end

  @doc "Processes of the library on `node`, and tables and registered names of the supervisor `sup` there."
  @spec left_behind(node(), atom()) :: [term()]
  def left_behind(node, sup) do
    tables = for table <- Cluster.call(node, :ets, :all, []), is_atom(table), do: table
    names = tables ++ Cluster.call(node, Process, :registered, [])

    Cluster.call(node, __MODULE__, :library_processes, []) ++
      for(name <- names, String.starts_with?(Atom.to_string(name), "#{sup}_handoff"), do: name)
  end

  # The permanent processes of the application, besides those right below its supervisor.
  @permanent [
    DurableHandoff.Stopping,
    DurableHandoff.Drain.Quiet,
    DurableHandoff.Drain.Learnt,
    DurableHandoff.Wire.Endpoint
  ]

  @doc """
  The processes of the library on this node, with the modules in which they were started, without the
  permanent ones.
  """
  @spec library_processes() :: [{pid(), module()}]
  def library_processes do
    for pid <- Process.list(),
        {:dictionary, dictionary} <- [Process.info(pid, :dictionary)],
        {module, _function, _arity} <- [dictionary[:"$initial_call"]],
        String.starts_with?(Atom.to_string(module), "Elixir.DurableHandoff."),
        module not in @permanent and hd(dictionary[:"$ancestors"] || [nil]) != DurableHandoff.TopSupervisor,
        do: {pid, module}
  end

  @doc "How many processes on `node` wait in a function that `module` has called."
  @spec waiting_in(node(), module()) :: non_neg_integer()
  def waiting_in(node, module), do: Cluster.call(node, __MODULE__, :count_waiting, [module])

  @doc false
  @spec count_waiting(module()) :: non_neg_integer()
  def count_waiting(module) do
    Enum.count(Process.list(), fn pid ->
      with [status: :waiting, current_stacktrace: trace] <- Process.info(pid, [:status, :current_stacktrace]),
           do: List.keymember?(trace, module, 0),
           else: (_runs -> false)
    end)
  end

  @doc "The state of a `DurableHandoff.Cordon` whose timer does not send its message."
  @spec cancel_timer(state) :: state when state: %{:timer => reference(), optional(atom()) => term()}
  def cancel_timer(%{timer: timer} = state) do
    Process.cancel_timer(timer)
    state
  end

  @doc "A policy for `eligible`: all servers except `s1`."
  @spec not_s1(map()) :: boolean()
  def not_s1(%{key: key}), do: key != "s1"

  @doc """
  A policy for `eligible`: all servers. It holds the drain at the server `s1` until `process` gets `:go_on`. The test
  gets `{:held, process}` (`hold_policy/1`).
  """
  @spec held_policy(map()) :: true
  def held_policy(%{key: "s1"}) do
    send(Application.fetch_env!(:handoff_integration, :held_policy), {:held, self()})

    receive do
      :go_on -> true
    end
  end

  def held_policy(_server), do: true

  @doc "Makes `held_policy/1` on `node` send its message to the calling test."
  @spec hold_policy(node()) :: :ok
  def hold_policy(node), do: Cluster.call(node, Application, :put_env, [:handoff_integration, :held_policy, self()])

  @doc "A policy for `eligible` that raises."
  @spec broken_policy(map()) :: no_return()
  def broken_policy(_server), do: raise("told to raise")

  @doc "A `heartbeat_meta` with a value of the node's application environment."
  @spec heartbeat_meta() :: map()
  def heartbeat_meta, do: %{"colour" => Application.get_env(:handoff_integration, :colour)}
end
