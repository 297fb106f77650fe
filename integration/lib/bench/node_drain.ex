defmodule HandoffBench.NodeDrain do
  @moduledoc """
  The cost of a Rust node as executor: the same drain with `executor: {:node, name}` and with `executor: :embedded`.

  A source and two targets in separate VMs, and the real Rust node, run on this machine. The store is in this
  VM and answers at once. Each drain has new servers and a new supervisor. The two drains differ only in what
  decides, and in the messages that this needs.
  """

  import HandoffBench.Timing, only: [decimals: 1, median: 1]

  alias HandoffBench.{Nodes, Options}

  @defaults %{servers: 10_000, rounds: 3}

  @doc "Runs the measurement with command-line arguments and prints its table."
  @spec main([String.t()]) :: :ok
  def main(argv) do
    options = Options.parse!(argv, [servers: :integer, rounds: :integer, program: :string], @defaults)
    Logger.configure(level: :warning)
    Nodes.start_distribution()
    {:ok, _store} = SimulatedStore.start_link(latency_ms: 0)
    {peers, [source | _targets] = nodes} = Nodes.start(3)
    rust = start_rust_node(options.program, nodes)
    executors = [embedded: :embedded, node: {:node, rust.name}]

    # A small drain of each kind comes first, to load code and open connections.
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

  # The command ends with this VM, because the shell between them reads its input until the end.
  @wrapper ~S(exec 3<&0; "$@" >&2 & pid=$!; cat <&3 >/dev/null; kill -KILL $pid)

  defp start_rust_node(program, nodes) do
    name = :"rust_#{Nodes.suffix()}@127.0.0.1"
    run = ["run", "--name", name, "--connect", Enum.join(nodes, ","), "--log-level", "warn"]

    port =
      Port.open({:spawn_executable, System.find_executable("sh")}, [
        :binary,
        args: ["-c", @wrapper, "bench", program | Enum.map(run, &to_string/1)],
        env: [{~c"DURABLE_HANDOFF_COOKIE", Atom.to_charlist(Node.get_cookie())}]
      ])

    [source | _targets] = nodes
    Nodes.await(fn -> List.keymember?(:erpc.call(source, DurableHandoff.RustNodes, :all, []), name, 0) end)
    %{name: name, port: port}
  end

  # Milliseconds, from the report.
  defp drain(source, nodes, executor, servers) do
    sup = :"bench_#{Nodes.suffix()}"
    options = [name: sup, prefix: "#{sup}/", backend: {SimulatedStore, node: node()}]
    # The targets start without handoff: drains at their end would be part of the next measurement.
    holders = for node <- nodes, do: Nodes.start_supervisor(node, options ++ [handoff_on_shutdown: node == source])
    Nodes.await_heartbeats(source, sup, length(nodes))
    Nodes.start_servers(source, sup, HandoffBench.NodeDrain.Server, servers)

    overrides = [executor: executor, timeout_ms: 600_000]
    {:ok, report} = :erpc.call(source, DurableHandoff, :drain, [sup, overrides], :infinity)
    ^servers = report.moved
    [] = report.executors_lost
    Enum.each(holders, &Nodes.stop_supervisor/1)
    report.duration_ms
  end

  defp print(options, figures) do
    IO.puts("""
    Draining #{options.servers} servers, store without latency, median of #{options.rounds}, Elixir #{System.version()}, OTP #{System.otp_release()}

      embedded engine   #{round(figures.embedded)} ms   (#{round(options.servers * 1_000 / figures.embedded)}/s)
      Rust node         #{round(figures.node)} ms   (#{round(options.servers * 1_000 / figures.node)}/s)
      ratio             #{decimals(figures.node / figures.embedded)}
    """)
  end

  defp json(%{servers: servers, rounds: rounds}, %{embedded: embedded_ms, node: node_ms}),
    do: %{servers: servers, rounds: rounds, embedded_ms: embedded_ms, node_ms: node_ms, ratio: node_ms / embedded_ms}
end
