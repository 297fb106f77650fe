defmodule Cluster do
  @moduledoc """
  Real BEAM nodes for tests: operating-system processes on this machine, all connected to one another and to
  the test.

      [a, b] = Cluster.start_nodes(2)
      {:ok, _app} = Cluster.start_host(a, name: Sup, prefix: "x/", backend: {SimulatedStore, node: node()})
      {:ok, _} = Cluster.call(a, DurableServer.Supervisor, :start_child, [Sup, {Servers.Counter, key: "k", initial_state: %{}}])
      Cluster.wait_until(fn -> Cluster.call(b, DurableServer.Supervisor, :lookup, [Sup, "k"]) end)

  Guarantees:

    * Nodes started in a test, or in `setup_all`, are gone after it, and when the test's VM dies.
    * `start_children/2` starts children in an OTP application of their own on that node. They survive the
      call that started them, and `stop/1` (or SIGTERM) shuts them down in order, as in a deployed release.
      `kill/1` does not.
    * Names are unique, so suites may run side by side on one machine.

  A node boots in about a second: start nodes once for a module, and use a fresh supervisor name and prefix a
  test (`unique/1`). Wait for conditions with `wait_until/2`; never sleep.

  ## Partitions

  `disconnect/2` cuts two nodes off from each other and keeps them apart until `reconnect/2`, or until the test
  has ended; both stay connected to the test. Nodes run with `prevent_overlapping_partitions false`, else the
  others would drop one of the two.
  """

  import ExUnit.Assertions, only: [flunk: 1]

  # Only an upper bound: on a busy machine any process may be delayed for seconds.
  @boot_timeout_ms 120_000
  @call_timeout_ms 120_000
  @wait_ms 120_000

  # The applications that DurableServer needs, as far as the test's VM runs them: the stand-in has its own
  # registry and no telemetry.
  @host_apps [:logger, :durable_server, :group, :telemetry]

  # Peers are mostly idle. Spinning schedulers would take processor time from the busy one.
  @quiet_schedulers ~w(+sbwt none +sbwtdcpu none +sbwtdio none)

  @doc "Makes the test's VM a node. To be called once, from `test_helper.exs`."
  @spec start_distribution() :: :ok
  def start_distribution do
    {_output, 0} = System.cmd(epmd(), ["-daemon"])
    {:ok, _pid} = Node.start(:"#{unique("tests")}@127.0.0.1", :longnames)
    :ok
  end

  @doc "A name that no other process uses on this machine."
  @spec unique(String.t()) :: String.t()
  def unique(prefix),
    do: "#{prefix}_#{System.unique_integer([:positive])}_#{:rand.uniform(0xFFFFFFFF)}"

  @doc "A unique supervisor name and prefix, as the first options of a supervisor."
  @spec unique_options() :: keyword()
  def unique_options do
    name = unique("sup")
    [name: String.to_atom(name), prefix: name <> "/"]
  end

  @doc """
  Starts `count` nodes at the same time. Options: `env:` (`[{"VARIABLE", "value"}]`), `args:` (for the
  emulator), `name:` (a prefix), `patient:` (`Patient`).
  """
  @spec start_nodes(pos_integer(), keyword()) :: [node()]
  def start_nodes(count, opts \\ []) do
    1..count
    |> Enum.map(fn _ -> Task.async(fn -> boot(opts) end) end)
    |> Task.await_many(@boot_timeout_ms)
    |> Enum.map(&admit/1)
  end

  @doc "Starts one node; see `start_nodes/2`."
  @spec start_node(keyword()) :: node()
  def start_node(opts \\ []), do: opts |> boot() |> admit()

  @doc "Calls a function on a node. An exception is raised in the caller."
  @spec call(node(), module(), atom(), [term()], timeout()) :: term()
  def call(node, module, function, args, timeout \\ @call_timeout_ms) do
    :erpc.call(node, module, function, args, timeout)
  rescue
    error in ErlangError ->
      case error.original do
        {:exception, reason, stacktrace} -> :erlang.raise(:error, reason, stacktrace)
        _not_raised_there -> reraise(error, __STACKTRACE__)
      end
  end

  @doc "`GenServer.call/2` with a timeout that is long enough for a busy machine."
  @spec ask(GenServer.server(), term()) :: term()
  def ask(server, request), do: GenServer.call(server, request, @call_timeout_ms)

  @doc "Starts children under an application of their own on `node`. The result names the application."
  @spec start_children(node(), [Supervisor.child_spec() | {module(), term()} | module()]) ::
          {:ok, atom()} | {:error, term()}
  def start_children(node, children),
    do: call(node, Cluster.Application, :launch, [String.to_atom(unique("app")), children])

  @doc "Stops what `start_children/2` started, in order, and waits for it."
  @spec stop_children(node(), atom(), timeout()) :: :ok | {:error, term()}
  def stop_children(node, app, timeout \\ @call_timeout_ms), do: call(node, Application, :stop, [app], timeout)

  @doc "Starts a `DurableServer.Supervisor` on `node` and waits until it is ready. Children in `after:` follow it under the same parent."
  @spec start_host(node(), keyword()) :: {:ok, atom()} | {:error, term()}
  def start_host(node, opts) do
    {followers, opts} = Keyword.pop(opts, :after, [])

    with {:ok, app} <- start_children(node, [{DurableServer.Supervisor, opts} | followers]) do
      wait_until(fn -> call(node, DurableServer.Supervisor, :ready?, [opts[:name]]) end)
      {:ok, app}
    end
  end

  @doc "Starts the same `DurableServer.Supervisor` on every node and waits until each knows all of them."
  @spec start_hosts([node()], keyword()) :: [atom()]
  def start_hosts(nodes, opts) do
    apps =
      for node <- nodes do
        {:ok, app} = start_host(node, opts)
        app
      end

    await_heartbeats(nodes, opts[:name])
    apps
  end

  @doc "Waits until each of `nodes` has a heartbeat of every other."
  @spec await_heartbeats([node()], atom()) :: :ok
  def await_heartbeats(nodes, supervisor) do
    for node <- nodes do
      wait_until(fn ->
        known = for {_pid, %{node: name}} <- call(node, Group, :members, [supervisor, "__heartbeat"]), do: name
        Enum.all?(nodes, &(Atom.to_string(&1) in known))
      end)
    end

    :ok
  end

  @doc "Shuts a node down in order (SIGTERM) and waits until it is gone for every other node."
  @spec stop(node(), timeout()) :: :ok
  def stop(node, timeout \\ @call_timeout_ms), do: signal(node, "TERM", timeout)

  @doc "Kills a node (SIGKILL) and waits until it is gone for every other node."
  @spec kill(node(), timeout()) :: :ok
  def kill(node, timeout \\ @call_timeout_ms), do: signal(node, "KILL", timeout)

  @doc """
  Suspends `node`, which then reads nothing, and fills the connection from here to it. Returns a function with which the
  node goes on; it does so after the test, too.
  """
  @spec fill_connection(node()) :: (() -> :ok)
  def fill_connection(node) do
    os_pid = call(node, System, :pid, [])

    go_on = fn ->
      System.cmd("kill", ["-CONT", os_pid], stderr_to_stdout: true)
      :ok
    end

    ExUnit.Callbacks.on_exit(go_on)
    {_output, 0} = System.cmd("kill", ["-STOP", os_pid])
    filler = :binary.copy("x", 65_536)
    wait_until(fn -> :erlang.send({:no_such_process, node}, filler, [:nosuspend, :noconnect]) == :nosuspend end)
    go_on
  end

  @doc "Cuts `a` and `b` off from each other."
  @spec disconnect(node(), node()) :: :ok
  def disconnect(a, b) do
    # A test that fails before it reconnects them must not make later ones fail.
    ExUnit.Callbacks.on_exit({:disconnected, a, b}, fn -> if [a, b] -- Node.list() == [], do: reconnect(a, b) end)
    # A wrong cookie on one side is enough to keep both from connecting again.
    true = call(a, Node, :set_cookie, [b, :cut_off])
    call(a, Node, :disconnect, [b])
    wait_until(fn -> b not in call(a, Node, :list, []) and a not in call(b, Node, :list, []) end)
    :ok
  end

  @doc "Undoes `disconnect/2`."
  @spec reconnect(node(), node()) :: :ok
  def reconnect(a, b) do
    true = call(a, Node, :set_cookie, [b, Node.get_cookie()])
    wait_until(fn -> call(a, Node, :connect, [b]) end)
    :ok
  end

  @doc "Calls `fun` repeatedly and returns its first true value. Fails the test after `timeout_ms`."
  @spec wait_until((() -> result), timeout()) :: result when result: term()
  def wait_until(fun, timeout_ms \\ @wait_ms),
    do: poll(fun, &(&1 not in [false, nil]), timeout_ms, fn _result -> "condition not met" end)

  @doc "Calls `fun` repeatedly until it returns `expected`. Fails the test after two minutes, and says what it returned."
  @spec wait_for(term(), (() -> term())) :: :ok
  def wait_for(expected, fun) do
    poll(fun, &(&1 == expected), @wait_ms, &"expected #{inspect(expected)}, and it is #{inspect(&1)}")
    :ok
  end

  defp poll(fun, done?, timeout_ms, missing),
    do: poll(fun, done?, timeout_ms, missing, System.monotonic_time(:millisecond) + timeout_ms)

  defp poll(fun, done?, timeout_ms, missing, deadline) do
    result = fun.()

    cond do
      done?.(result) ->
        result

      System.monotonic_time(:millisecond) > deadline ->
        flunk("#{missing.(result)}, after #{timeout_ms} ms")

      true ->
        receive do
        after
          10 -> poll(fun, done?, timeout_ms, missing, deadline)
        end
    end
  end

  # Peers are started unlinked and stopped by `on_exit`, because a link would end a peer with the task that
  # starts it.
  defp boot(opts) do
    name = unique(opts[:name] || "node")
    paths = Enum.flat_map(:code.get_path(), &[~c"-pa", &1])

    fixed =
      @quiet_schedulers ++
        ["-setcookie", Atom.to_string(Node.get_cookie())] ++ ~w(-kernel prevent_overlapping_partitions false)

    args = Enum.map(fixed ++ Keyword.get(opts, :args, []), &String.to_charlist/1)

    env =
      for {variable, value} <- Keyword.get(opts, :env, []),
          do: {String.to_charlist(variable), String.to_charlist(value)}

    {:ok, peer, node} =
      :peer.start(%{
        name: String.to_atom(name),
        host: ~c"127.0.0.1",
        longnames: true,
        # The control connection does not use the distribution, so a node that is disconnected keeps running.
        connection: {{127, 0, 0, 1}, 0},
        args: args ++ paths,
        env: env,
        wait_boot: @boot_timeout_ms
      })

    true = :peer.call(peer, :net_kernel, :connect_node, [node()], @call_timeout_ms)

    for {app, _description, _version} <- Application.started_applications(), app in @host_apps do
      {:ok, _started} = call(node, Application, :ensure_all_started, [app])
    end

    :ok = call(node, Cluster, :print_nothing, [])
    if opts[:patient], do: Patient.make(node)
    {peer, node}
  end

  @doc """
  Errors are logged, because the library learns from them that a server could not store its state, but no
  handler prints them.
  """
  @spec print_nothing() :: :ok
  def print_nothing do
    :ok = Logger.configure(level: :error)
    Enum.each(:logger.get_handler_ids(), &(:ok = :logger.set_handler_config(&1, :level, :none)))
  end

  defp admit({peer, node}) do
    for other <- Node.list(), other != node, do: introduce(other, node)

    ExUnit.Callbacks.on_exit(fn ->
      # The test may have killed it already.
      catch_exit_of(fn -> :peer.stop(peer) end)
    end)

    node
  end

  # A node of another test may end in between.
  defp introduce(other, node) do
    :erpc.call(other, :net_kernel, :connect_node, [node])
  catch
    :error, {:erpc, :noconnection} -> false
  end

  defp catch_exit_of(fun) do
    fun.()
  catch
    :exit, _reason -> :ok
  end

  defp signal(node, signal, timeout) do
    pid = call(node, System, :pid, [])
    true = Node.monitor(node, true)
    {_output, 0} = System.cmd("kill", ["-" <> signal, pid])

    receive do
      {:nodedown, ^node} -> :ok
    after
      timeout -> flunk("#{node} still runs #{timeout} ms after SIG#{signal}")
    end

    # Each node has to notice that by itself. Until then it takes the dead node's processes for living ones.
    wait_until(fn -> not Enum.any?(Node.list(), &lists?(&1, node)) end)
    :ok
  end

  # A node of another test may end in between.
  defp lists?(other, node) do
    node in :erpc.call(other, Node, :list, [], @call_timeout_ms)
  catch
    :error, {:erpc, :noconnection} -> false
  end

  defp epmd do
    System.find_executable("epmd") ||
      Path.join([:code.root_dir(), "erts-#{:erlang.system_info(:version)}", "bin", "epmd"])
  end
end
