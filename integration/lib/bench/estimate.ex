defmodule HandoffBench.Estimate do
  @moduledoc """
  Compares the estimated time of a drain with its real time on four stores. There are two estimates: that of
  the plan, and that in the log line at the start of the moves.

  A source and two targets run in separate VMs on this machine. Every second server has something to store.
  Each drain has new servers and a new supervisor. The plan's estimate is for the whole drain, that of the log
  line for the time after the line.
  """

  import HandoffBench.Timing, only: [decimals: 1]

  alias HandoffBench.{Nodes, Options}
  alias HandoffBench.Estimate.Server

  @defaults %{servers: 1_000, stores: "directory,slots,instant,latency", rounds: 1}
  @stores %{
    "directory" => "a directory",
    "slots" => "8 slots x 10 ms",
    "instant" => "no latency",
    "latency" => "50 ms"
  }
  @line_ms 30_000

  @doc "Runs the measurement with command-line arguments and prints its table. Halts with 1 when an estimate is wrong."
  @spec main([String.t()]) :: :ok
  def main(argv) do
    options = Options.parse!(argv, [servers: :integer, stores: :string, rounds: :integer], @defaults)
    stores = String.split(options.stores, ",")

    for store <- stores,
        not is_map_key(@stores, store) and not url?(store),
        do: Mix.raise("--stores takes #{names()}, a URL, not #{store}")

    Logger.configure(level: :warning)
    Nodes.start_distribution()
    {:ok, _store} = SimulatedStore.start_link(latency_ms: 0)
    {peers, nodes} = Nodes.start(3)

    rows =
      try do
        # Loads code and opens connections before the measurement.
        drain("instant", nodes, 100)
        for _ <- 1..options.rounds, store <- stores, do: drain(store, nodes, options.servers)
      after
        Enum.each(peers, &:peer.stop/1)
        File.rm_rf!(directory())
      end

    print(options, rows)
    Options.write_json(options, %{servers: options.servers, rows: rows})
    if Enum.any?(rows, &wrong?/1), do: System.halt(1), else: :ok
  end

  defp names, do: @stores |> Map.keys() |> Enum.join(", ")

  defp drain(store, [source | _targets] = nodes, servers) do
    sup = :"bench_#{Nodes.suffix()}"
    options = [name: sup, prefix: "#{sup}/", backend: backend(store)]
    # The targets start without handoff: drains at their end would be part of the next measurement.
    holders = for node <- nodes, do: Nodes.start_supervisor(node, options ++ [handoff_on_shutdown: node == source])
    Nodes.await_heartbeats(source, sup, length(nodes))
    pids = Nodes.start_servers(source, sup, Server, servers)
    for pid <- Enum.take_every(pids, 2), do: :ok = GenServer.call(pid, :add)
    slow(store)

    {:ok, %{estimate: %{drain_ms: plan_ms}}} =
      :erpc.call(source, DurableHandoff, :plan, [sup, [timeout_ms: 600_000]], :infinity)

    listen(source)
    {:ok, report} = :erpc.call(source, DurableHandoff, :drain, [sup, [timeout_ms: 600_000]], :infinity)
    ended_us = now_us(source)
    {line_ms, told_us} = line()
    ^servers = report.moved
    SimulatedStore.configure(node(), latency_ms: 0, slots: :infinity)
    :ok = :erpc.call(source, :logger, :set_primary_config, [:level, :none])
    Enum.each(holders, &Nodes.stop_supervisor/1)

    %{
      store: store,
      plan_ms: plan_ms,
      drain_ms: report.duration_ms,
      line_ms: line_ms,
      rest_ms: (ended_us - told_us) / 1_000
    }
  end

  defp slow("slots"), do: SimulatedStore.configure(node(), latency_ms: 10, slots: 8)
  defp slow("latency"), do: SimulatedStore.configure(node(), latency_ms: 50)
  defp slow(_at_once), do: :ok

  defp backend("directory") do
    File.mkdir_p!(directory())
    {DurableHandoff.Store, url: "file://#{directory()}"}
  end

  defp backend(store), do: if(url?(store), do: {DurableHandoff.Store, url: store}, else: {SimulatedStore, node: node()})

  defp url?(store), do: String.contains?(store, "://")

  defp directory, do: Path.join(System.tmp_dir!(), "handoff_#{node()}")

  defp now_us(node), do: :erpc.call(node, DurableHandoff.Clock, :now_us, [])

  # This VM receives the estimate's log line, with the time at which the source wrote it.
  defp listen(source) do
    _earlier = :erpc.call(source, :logger, :remove_handler, [:estimate])
    :ok = :erpc.call(source, :logger, :set_primary_config, [:level, :info])
    for id <- :erpc.call(source, :logger, :get_handler_ids, []), do: silence(source, id)
    :ok = :erpc.call(source, :logger, :add_handler, [:estimate, __MODULE__, %{config: %{bench: self()}}])
  end

  defp silence(source, id), do: :ok = :erpc.call(source, :logger, :set_handler_config, [id, :level, :none])

  @doc false
  def log(%{meta: %{durable_handoff: :estimate, drain_ms: drain_ms}}, %{config: %{bench: bench}}),
    do: send(bench, {:estimate, drain_ms, DurableHandoff.Clock.now_us()})

  def log(_event, _config), do: :ok

  defp line do
    receive do
      {:estimate, drain_ms, told_us} -> {drain_ms, told_us}
    after
      @line_ms -> raise "the drain has logged no estimate"
    end
  end

  defp wrong?(row),
    do: Enum.any?([{row.plan_ms, row.drain_ms}, {row.line_ms, row.rest_ms}], fn {a, b} -> a / b > 2 or b / a > 2 end)

  defp print(options, rows) do
    IO.puts("""
    Estimates of drains of #{options.servers} servers, half of them with something to store, Elixir #{System.version()}, OTP #{System.otp_release()}

      store              plan      drain     ratio   line      rest      ratio
    #{Enum.map_join(rows, "\n", &shown/1)}

    plan: the estimate of plan/2, drain: the drain that followed; line: the estimate in the log, rest: from then on.
    """)
  end

  defp shown(row) do
    figures = [seconds(row.plan_ms), seconds(row.drain_ms), decimals(row.plan_ms / row.drain_ms)]
    figures = figures ++ [seconds(row.line_ms), seconds(row.rest_ms), decimals(row.line_ms / row.rest_ms)]
    note = if wrong?(row), do: "  NOT within a factor of two", else: ""

    "  " <>
      String.pad_trailing(Map.get(@stores, row.store, row.store) <> " ", 19) <>
      Enum.map_join(figures, &String.pad_trailing(&1, 10)) <> note
  end

  defp seconds(ms), do: decimals(ms / 1_000) <> " s"
end
