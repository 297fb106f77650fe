defmodule ClusterCase do
  @moduledoc """
  A test on peer nodes with a store and a supervisor name of its own.

      use ClusterCase, nodes: 3

  starts the nodes once for the module; with `patient: true`, they wait for one another (`Patient`). Each test gets, in
  its context:

    * `nodes`: the nodes, the first of them as `a`, `b`, `c` and `d`, too;
    * `store`: where its `SimulatedStore` is, `sup`: a supervisor name;
    * `opts`: options for that supervisor on that store. Nothing is started on the nodes: see `start/2` and
      `Cluster.start_hosts/2`.

  Everything of `Cluster` and this module is imported; `Host` is `DurableServer.Supervisor`.
  """

  use ExUnit.CaseTemplate

  # Long enough for a drain that waits for a target.
  @task_ms 120_000
  @start_ms 50_000

  using opts do
    quote do
      import Cluster
      import ClusterCase
      import Recorded, only: [record: 3, record: 4]

      alias DurableServer.LifecycleManager
      alias DurableServer.Supervisor, as: Host
      alias Servers.{Counter, Troublesome}

      setup_all do
        {:ok,
         nodes: Cluster.start_nodes(unquote(Keyword.get(opts, :nodes, 2)), unquote(Keyword.take(opts, [:patient])))}
      end
    end
  end

  setup %{nodes: nodes} do
    # Faults that an earlier test has set must not affect this one.
    for node <- nodes, node in Node.list(), do: Servers.Troublesome.disarm_all(node)
    store = String.to_atom(Cluster.unique("store"))
    # Not with `start_supervised!/1`: the store must outlive the test, until everything that the test started
    # on the nodes has ended.
    {:ok, pid} = SimulatedStore.start_link(name: store)
    Process.unlink(pid)
    on_exit(fn -> GenServer.stop(pid) end)
    [name: sup, prefix: _] = names = Cluster.unique_options()
    opts = names ++ [backend: {SimulatedStore, name: store, node: node()}]
    Enum.zip([:a, :b, :c, :d], nodes) ++ [store: {store, node()}, sup: sup, opts: opts]
  end

  @doc "Starts the test's supervisor on all its nodes, with further options."
  @spec start(map(), keyword()) :: :ok
  def start(context, opts \\ []) do
    Cluster.start_hosts(context.nodes, Keyword.merge(context.opts, opts))
    :ok
  end

  @doc "Adds backend options, such as `discovery_interval_ms:`, to a test's options."
  @spec backend(map(), keyword()) :: keyword()
  def backend(context, more) do
    {module, opts} = context.opts[:backend]
    [backend: {module, opts ++ more}]
  end

  @doc """
  Options with which a running supervisor sends no requests to the store by itself, for tests that count
  requests.
  """
  @spec quiet(map()) :: keyword()
  def quiet(context) do
    hours = 3_600_000
    [heartbeat_interval_ms: hours, heartbeat_staleness_threshold_ms: 3 * hours] ++ no_sweeps(context)
  end

  @doc """
  Options with which no node sweeps: by itself DurableServer does so first one to six seconds after its start, whatever
  its interval.
  """
  @spec no_sweeps(map()) :: keyword()
  def no_sweeps(context) do
    hours = 3_600_000
    [initial_discovery_delay_ms: hours] ++ backend(context, discovery_interval_ms: hours)
  end

  @doc "A `heartbeat_meta` function that every node has."
  @spec version_meta() :: map()
  def version_meta, do: %{"version" => "1"}

  @doc "Starts a server on `node` itself."
  @spec start_server(map(), node(), module(), String.t(), map()) :: pid()
  def start_server(context, node, module, key, state \\ %{}) do
    child = {module, key: key, initial_state: Map.put(state, :key, key)}
    # DurableServer's own limit is five seconds.
    options = [local_only: true, timeout: @start_ms]
    {:ok, {pid, _meta}} = Cluster.call(node, DurableServer.Supervisor, :start_child, [context.sup, child, options])
    pid
  end

  @doc "`ensure_started_child` as `node` would call it."
  @spec ensure_started(map(), node(), String.t(), module(), map(), keyword()) :: term()
  def ensure_started(context, node, key, module \\ Servers.Counter, state \\ %{}, opts \\ []) do
    child = {module, key: key, initial_state: state}
    Cluster.call(node, DurableServer.Supervisor, :ensure_started_child, [context.sup, child, opts])
  end

  @doc "`rehome_child` as `node` would call it."
  @spec rehome(map(), node(), module(), String.t(), keyword()) :: term()
  def rehome(context, node, module, key, opts) do
    child = {module, key: key, initial_state: %{}}
    Cluster.call(node, DurableServer.Supervisor, :rehome_child, [context.sup, child, opts])
  end

  @doc """
  `rehome/5` of a server of `node` whose target has received the stop before it is asked for the start;
  otherwise it would answer with the old pid. Lets all other held requests through.
  """
  @spec move(map(), node(), module(), String.t(), keyword()) :: term()
  def move(context, node, module, key, opts) do
    targets = List.wrap(opts[:target_node] || context.nodes)
    hold_move(context, node, key, targets)

    letting_go =
      Task.async(fn ->
        await_stopped(context, key, targets)
        SimulatedStore.resume(context.store)
      end)

    result = rehome(context, node, module, key, opts)
    :ok = await_task(letting_go)
    result
  end

  @doc """
  Holds moves of a server of `node` between its stop and the request to start it, at their read. Waits first
  until `targets` know the server; otherwise it would seem to them as if it had already been stopped.
  """
  @spec hold_move(map(), node(), String.t(), [node()]) :: :ok
  def hold_move(context, node, key, targets) do
    for target <- targets, do: await_on(context, target, key, node)
    SimulatedStore.pause(context.store, {:get, storage_key(context, key)})
  end

  @doc "Waits until a move is held (`hold_move/4`) and `targets` have received the stop."
  @spec await_stopped(map(), String.t(), [node()]) :: :ok
  def await_stopped(context, key, targets) do
    read = {:get, storage_key(context, key)}
    Cluster.wait_until(fn -> read in SimulatedStore.paused(context.store) end)
    for target <- targets, do: await_none(context, target, key)
    :ok
  end

  @doc "Waits until `node` sees no owner of a key any more, which happens some time after a stop elsewhere."
  @spec await_none(map(), node(), String.t()) :: :ok
  def await_none(context, node, key), do: Cluster.wait_for(nil, fn -> whereis(context, node, key) end)

  @doc "The result of a task that moves servers, with a long timeout."
  @spec await_task(Task.t()) :: term()
  def await_task(task), do: Task.await(task, @task_ms)

  @doc "The results of several tasks, in order."
  @spec await_tasks([Task.t()]) :: [term()]
  def await_tasks(tasks), do: Task.await_many(tasks, @task_ms)

  @doc "The pid that `node` sees under a key, or nil."
  @spec whereis(map(), node(), String.t()) :: pid() | nil
  def whereis(context, node, key) do
    case Cluster.call(node, DurableServer.Supervisor, :lookup, [context.sup, key]) do
      {pid, _meta} -> pid
      nil -> nil
    end
  end

  @doc "Waits until `node` sees the key on `where`; the pid."
  @spec await_on(map(), node(), String.t(), node()) :: pid()
  def await_on(context, node, key, where) do
    Cluster.wait_until(fn ->
      pid = whereis(context, node, key)
      if pid && node(pid) == where, do: pid
    end)
  end

  @doc "The stored state of a key."
  @spec stored(map(), String.t()) :: struct()
  def stored(context, key) do
    %{body: body, etag: etag} = SimulatedStore.peek(context.store, storage_key(context, key))
    %{body | etag: etag}
  end

  @doc """
  Writes the stored state of a key again, unchanged, behind the back of its server, so that the server's next
  write is a conflict.
  """
  @spec overwrite(map(), String.t()) :: :ok
  def overwrite(context, key) do
    {:ok, _object} = SimulatedStore.put_object(place(context), storage_key(context, key), stored(context, key))
    :ok
  end

  @spec storage_key(map(), String.t()) :: String.t()
  def storage_key(context, key), do: context.opts[:prefix] <> key

  @doc """
  Stores a heartbeat of a node that need not exist, `age_ms` old. Nodes learn of it when they next read the
  stored heartbeats.
  """
  @spec put_heartbeat(map(), String.t(), integer(), map()) :: :ok
  def put_heartbeat(context, name, age_ms, facts \\ %{}) do
    stamp = System.system_time(:millisecond) - age_ms
    heartbeat = Map.merge(%{"node" => name, "node_ref" => 1, "last_heartbeat_at" => stamp}, facts)
    {:ok, _object} = SimulatedStore.put_object(place(context), storage_key(context, "__nodes/" <> name), heartbeat)
    :ok
  end

  @doc "The store as a backend's state, for calls of its callbacks."
  @spec place(map()) :: term()
  def place(context) do
    {module, opts} = context.opts[:backend]
    {:ok, %{state: place}} = module.init_backend(opts)
    place
  end

  @doc "Waits until `count` messages are in the mailbox of a process on any node."
  @spec await_queued(pid(), non_neg_integer()) :: :ok
  def await_queued(pid, count) do
    length = {:message_queue_len, count}
    Cluster.wait_for(length, fn -> Cluster.call(node(pid), Process, :info, [pid, :message_queue_len]) end)
  end

  @doc "Waits for the end of a process; its exit reason."
  @spec await_down(pid()) :: term()
  def await_down(pid) do
    ref = Process.monitor(pid)

    receive do
      {:DOWN, ^ref, :process, _pid, reason} -> reason
    after
      60_000 -> ExUnit.Assertions.flunk("#{inspect(pid)} still runs")
    end
  end
end
