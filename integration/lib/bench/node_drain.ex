defmodule HandoffBench.NodeDrain do
  @moduledoc """
  What it costs that a Rust node decides: the same drain with `executor: {:node, name}` and with `executor:
  :embedded`.

  A source and two targets, VMs of their own, and the real Rust node, all on this machine; the store answers
  at once and is in this VM. Every drain is of fresh servers under a supervisor of its own. What differs
  between the two is who decides, and the way there and back.
  """

  @compile {:no_warn_undefined, [DurableServer.Supervisor]}

  import HandoffBench.Timing, only: [median: 1]

  alias HandoffBench.Options

  @defaults %{servers: 10_000, rounds: 3}
  @boot_ms 60_000

  @doc "Runs the measurement with command-line arguments and prints its table."
  @spec main([String.t()]) :: :ok
  def main(argv) do
    options = Options.parse!(argv, [servers: :integer, rounds: :integer, program: :string], @defaults)
    Logger.configure(level: :warning)
    {:ok, _pid} = Node.start(:"bench_#{suffix()}@127.0.0.1", :longnames)
    Node.set_cookie(:"bench_#{suffix()}")
    {:ok, _store} = SimulatedStore.start_link(latency_ms: 0)
    {peers, [source | _targets] = nodes} = Enum.unzip(for _ <- 1..3, do: start_peer())
    for node <- nodes, other <- nodes, do: :erpc.call(node, :net_kernel, :connect_node, [other])
    rust = start_rust_node(options.program, nodes)
    executors = [embedded: :embedded, node: {:node, rust.name}]

    # One small drain of each first: code loading, connections.
    for {_name, executor} <- executors, do: drain(source, nodes, executor, 100)

    times =
      for _ <- 1..options.rounds,
          {name, executor} <- executors,
          do: {name, drain(source, nodes, executor, options.servers)}

    Port.close(rust.port)
    Enum.each(peers, &:peer.stop/1)
    figures = for {name, _executor} <- executors, into: %{}, do: {name, median(Keyword.get_values(times, name))}
    print(options, figures)
    Options.write_json(options, json(options, figures))
    :ok
  end

  defp start_peer do
    paths = Enum.flat_map(:code.get_path(), &[~c"-pa", &1])
    cookie = Node.get_cookie() |> Atom.to_charlist()

    {:ok, peer, node} =
      :peer.start(%{
        name: :"bench_#{suffix()}",
        host: ~c"127.0.0.1",
        longnames: true,
        connection: :standard_io,
        args: [~c"-setcookie", cookie | paths],
        wait_boot: @boot_ms
      })

    true = :peer.call(peer, :net_kernel, :connect_node, [node()])
    for app <- [:logger, :durable_handoff], do: {:ok, _apps} = :erpc.call(node, Application, :ensure_all_started, [app])
    # How the hosts end after each drain is loud and of no interest.
    :ok = :erpc.call(node, Logger, :configure, [[level: :none]])
    {peer, node}
  end

  # Ends when this VM does: the shell in between reads to the end of its input.
  @wrapper ~S(exec 3<&0; "$@" >&2 & pid=$!; cat <&3 >/dev/null; kill -KILL $pid)

  defp start_rust_node(program, nodes) do
    name = :"rust_#{suffix()}@127.0.0.1"
    run = ["run", "--name", name, "--connect", Enum.join(nodes, ","), "--log-level", "warn"]

    port =
      Port.open({:spawn_executable, System.find_executable("sh")}, [
        :binary,
        args: ["-c", @wrapper, "bench", program | Enum.map(run, &to_string/1)],
        env: [{~c"DURABLE_HANDOFF_COOKIE", Atom.to_charlist(Node.get_cookie())}]
      ])

    [source | _targets] = nodes
    await(fn -> List.keymember?(:erpc.call(source, DurableHandoff.RustNodes, :all, []), name, 0) end)
    %{name: name, port: port}
  end

  # Milliseconds, as the report says them.
  defp drain(source, nodes, executor, servers) do
    sup = :"bench_#{suffix()}"
    options = [name: sup, prefix: "#{sup}/", backend: {SimulatedStore, node: node()}]
    # The targets hand nothing over when they are ended: that would be measured with the next drain.
    holders = for node <- nodes, do: start_supervisor(node, options ++ [handoff_on_shutdown: node == source])
    await(fn -> length(:erpc.call(source, DurableHandoff.Host.View, :build, [sup, [], []]).nodes) == length(nodes) end)

    1..servers
    |> Task.async_stream(&start_server(source, sup, &1), max_concurrency: 16, timeout: @boot_ms)
    |> Stream.run()

    overrides = [executor: executor, timeout_ms: 600_000]
    {:ok, report} = :erpc.call(source, DurableHandoff, :drain, [sup, overrides], :infinity)
    ^servers = report.moved
    [] = report.executors_lost
    for holder <- holders, do: stop(holder)
    report.duration_ms
  end

  defp start_server(source, sup, index) do
    child = {HandoffBench.NodeDrain.Server, key: "s#{index}", initial_state: %{}}

    {:ok, _started} =
      :erpc.call(source, DurableServer.Supervisor, :start_child, [sup, child, [local_only: true]], @boot_ms)
  end

  # A process that stays: the supervisor would end with the call that starts it.
  defp start_supervisor(node, options) do
    parent = self()

    holder =
      Node.spawn(node, fn ->
        Process.flag(:trap_exit, true)
        {:ok, sup} = Supervisor.start_link([{DurableHandoff.Supervisor, options}], strategy: :one_for_one)
        send(parent, {:started, self()})

        receive do
          {:stop, from} ->
            # Not in order: no server is left to move, and none has an owner.
            Process.exit(sup, :kill)
            send(from, {:stopped, self()})
        end
      end)

    receive do
      {:started, ^holder} -> holder
    after
      @boot_ms -> raise "the supervisor did not start on #{node}"
    end
  end

  defp stop(holder) do
    send(holder, {:stop, self()})

    receive do
      {:stopped, ^holder} -> :ok
    end
  end

  defp await(condition, looks \\ 600) do
    cond do
      condition.() -> :ok
      looks == 0 -> raise "not so within a minute"
      true -> Process.sleep(100) && await(condition, looks - 1)
    end
  end

  defp print(options, figures) do
    IO.puts("""
    Draining #{options.servers} servers, store without latency, median of #{options.rounds}, Elixir #{System.version()}, OTP #{System.otp_release()}

      embedded engine   #{round(figures.embedded)} ms   (#{round(options.servers * 1_000 / figures.embedded)}/s)
      Rust node         #{round(figures.node)} ms   (#{round(options.servers * 1_000 / figures.node)}/s)
      ratio             #{:erlang.float_to_binary(figures.node / figures.embedded, decimals: 2)}
    """)
  end

  defp json(%{servers: servers, rounds: rounds}, %{embedded: embedded_ms, node: node_ms}),
    do: %{servers: servers, rounds: rounds, embedded_ms: embedded_ms, node_ms: node_ms, ratio: node_ms / embedded_ms}

  defp suffix, do: Base.encode16(:crypto.strong_rand_bytes(5), case: :lower)
end
