defmodule HandoffDemo.NodeTest do
  # A node of the demo, with this test as its driver. Not async: nodes of the demo look for the store under
  # its default name.
  use ExUnit.Case

  alias HandoffDemo.Server

  @token "the token of this run"
  @timeout_ms 60_000

  setup do
    {:ok, listener} = :gen_tcp.listen(0, [:binary, packet: 4, active: true, ip: {127, 0, 0, 1}, reuseaddr: true])
    {:ok, listener: listener}
  end

  test "the driver's process ends: the node halts", %{listener: listener} do
    {node, driver} = boot(listener, :store)
    :ok = :gen_tcp.close(driver)
    assert_receive {^node, {:exit_status, 1}}, @timeout_ms
  end

  test "SIGTERM: the stop event of every server arrives before the connection closes", %{listener: listener} do
    {node, driver} = boot(listener, :app)
    assert {:ok, 3} = command(driver, 1, :start_servers, [0, 1, 3, nil, :none, 0, false])

    {:os_pid, pid} = Port.info(node, :os_pid)
    {_output, 0} = System.cmd("kill", ["-TERM", Integer.to_string(pid)])
    records = records_until_closed(driver)

    for moment <- [:init, :terminate, :down],
        do: assert(Enum.sort(for {^moment, index, _pid, _at, _counter} <- records, do: index) == [0, 1, 2])

    assert_receive {^node, {:exit_status, 0}}, @timeout_ms

    # The servers are stopped and stored, so the next node can start them.
    for index <- 0..2, do: assert(%{body: _stored} = SimulatedStore.peek(node(), "demo/" <> Server.key(index)))
  end

  test "a failing command returns its reason", %{listener: listener} do
    {_node, driver} = boot(listener, :app)
    assert {:error, reason} = command(driver, 1, :connect, [["nobody@127.0.0.1"]])
    # The value is on the same line or, from Elixir 1.20 on, on the next one.
    assert reason =~ ~r/no match of right hand side value:\s+false/
  end

  test "a command that fails in its own task returns the reason", %{listener: listener} do
    {_node, driver} = boot(listener, :app)
    arguments = [0, 1, 1, nil, :none, 0, false]
    assert {:ok, 1} = command(driver, 1, :start_servers, arguments)
    assert {:error, reason} = command(driver, 2, :start_servers, arguments)
    assert reason =~ "already_started"
  end

  test "a reservation in the store is reported, and whether it has expired", %{listener: listener} do
    {_node, driver} = boot(listener, :app)
    assert {:ok, 1} = command(driver, 1, :start_servers, [0, 1, 1, nil, :none, 0, false])
    assert {:ok, [0]} = command(driver, 2, :running, [])
    assert HandoffDemo.Leftovers.reservations() == []

    key = "demo/" <> Server.key(0)
    reserve(key, System.system_time(:millisecond) + 3_600_000)
    assert [{^key, left_ms}] = HandoffDemo.Leftovers.reservations()
    assert left_ms > 0
    reserve(key, System.system_time(:millisecond) - 1)
    assert HandoffDemo.Leftovers.reservations() == [{key, 0}]
  end

  test "separated nodes stay separated until they are reconnected", %{listener: listener} do
    # Servers of earlier tests may still be listed.
    name = node_name()
    {_node, driver} = boot(listener, :app, name)
    [me, app] = [Atom.to_string(node()), String.to_atom(name)]
    assert app in Node.list()

    assert {:ok, :ok} = command(driver, 1, :cut, [[me]])
    Cluster.wait_until(fn -> app not in Node.list() end)
    refute Node.connect(app)
    # The driver tells both.
    assert {:ok, :ok} = here(:cut, [[name]])
    refute Node.connect(app)
    assert {:ok, :ok} = command(driver, 2, :heal, [[me]])
    refute Node.connect(app)
    assert {:ok, :ok} = here(:heal, [[name]])
    Cluster.wait_until(fn -> Node.connect(app) end)
  end

  test "without the driver's environment: the node ends, and names the command that starts it" do
    node = open([])
    assert_receive {^node, {:exit_status, 1}}, @timeout_ms
    assert output(node) =~ "nodes of the demo are started by integration/demo"
  end

  test "no driver listens: the node ends with an error", %{listener: listener} do
    {:ok, port} = :inet.port(listener)
    :ok = :gen_tcp.close(listener)
    node = open([{"HANDOFF_DEMO_NODE", config(:store, port)}])
    assert_receive {^node, {:exit_status, 1}}, @timeout_ms
    assert output(node) =~ "driver_unreachable"
  end

  # Runs a command on this node, in a process that may trap exits.
  defp here(name, arguments), do: Task.await(Task.async(HandoffDemo.Commands, :run, [name, arguments]), @timeout_ms)

  # A reservation as an unfinished move leaves it.
  defp reserve(key, until_ms) do
    {:ok, %{state: store}} = SimulatedStore.init_backend([])

    change = fn %{body: %{meta: meta} = stored} ->
      {:ok, %{stored | meta: %{meta | restart_attempt_node: "gone@nowhere", restart_attempt_ttl: until_ms}}}
    end

    {:ok, _object} = SimulatedStore.update_object(store, key, change, [])
  end

  # Starts a node, and for an app its store, accepts its connection, and returns it when the node is ready.
  defp boot(listener, role, name \\ node_name()) do
    if role == :app, do: start_supervised!(SimulatedStore)
    {:ok, port} = :inet.port(listener)
    node = open([{"HANDOFF_DEMO_NODE", config(role, port)}], name)
    driver = accept(listener, node)
    assert {:hello, @token, "node1"} = event(driver)
    assert {:ready, _otp, _elixir, _version, _kind} = event(driver)
    {node, driver}
  end

  defp accept(listener, node) do
    case :gen_tcp.accept(listener, 2 * @timeout_ms) do
      {:ok, driver} -> driver
      {:error, reason} -> flunk("the node did not connect (#{reason}), and said: #{output(node)}")
    end
  end

  defp node_name, do: Cluster.unique("demo") <> "@127.0.0.1"

  defp open(env, name \\ node_name()) do
    paths = Enum.flat_map(:code.get_path(), &["-pa", &1])
    cookie = {"ERL_AFLAGS", "-setcookie #{Node.get_cookie()}"}

    port =
      Port.open({:spawn_executable, System.find_executable("elixir")}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        args: paths ++ ["--name", name, "--no-halt", "-e", "HandoffDemo.Main.run()"],
        env: for({variable, value} <- [cookie | env], do: {to_charlist(variable), to_charlist(value)})
      ])

    {:os_pid, pid} = Port.info(port, :os_pid)
    # The test left this node running. It halts when its connection closes with the test.
    on_exit(fn -> System.cmd("kill", ["-KILL", Integer.to_string(pid)], stderr_to_stdout: true) end)
    port
  end

  defp config(role, port) do
    %{
      label: "node1",
      role: role,
      mode: :graceful,
      generation: "1",
      token: @token,
      port: port,
      store: {:simulated, Atom.to_string(node())},
      executor: :embedded,
      client: :plain,
      discovery_interval_ms: 60_000,
      heartbeat_interval_ms: 10_000,
      max_concurrency: 50,
      concurrency: :adaptive,
      timeout_ms: 30_000,
      attempt_timeout_ms: 15_000,
      heartbeat_max_age_ms: nil,
      slow_child_ms: 0,
      newer: false,
      rebalance_after_ms: nil,
      start_leftovers: true
    }
    |> :erlang.term_to_binary()
    |> Base.encode16(case: :lower)
  end

  defp command(driver, id, name, arguments) do
    :ok = :gen_tcp.send(driver, :erlang.term_to_binary({id, name, arguments}))
    reply(driver, id)
  end

  defp reply(driver, id) do
    case event(driver) do
      {:reply, ^id, answer} ->
        answer

      {:records, _records} = event ->
        send(self(), {:kept, event})
        reply(driver, id)
    end
  end

  defp event(driver) do
    assert_receive {:tcp, ^driver, frame}, @timeout_ms
    :erlang.binary_to_term(frame)
  end

  defp records_until_closed(driver) do
    receive do
      {:kept, {:records, records}} -> records ++ records_until_closed(driver)
      {:tcp, ^driver, frame} -> records(:erlang.binary_to_term(frame)) ++ records_until_closed(driver)
      {:tcp_closed, ^driver} -> []
    after
      @timeout_ms -> flunk("the connection is still open")
    end
  end

  defp records({:records, records}), do: records
  defp records(_other_event), do: []

  defp output(port) do
    receive do
      {^port, {:data, data}} -> data <> output(port)
    after
      0 -> ""
    end
  end
end
