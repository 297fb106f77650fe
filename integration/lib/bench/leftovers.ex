defmodule HandoffBench.Leftovers do
  @moduledoc """
  How long servers that a drain could not move in time are down, with `start_leftovers` and without it.

  Both runs have the same nodes, each an operating-system process, on a store that serves a fixed number of
  requests at a time: a source that runs all servers, and receivers that run none. SIGTERM shuts the source
  down with a `timeout_ms` that is too short to move them all. Each server reports when it stops and when it
  starts (`HandoffBench.Leftovers.Server`). Its gap is the time in between. Only servers that the drain did
  not move count.

  Without `start_leftovers` these servers wait for the next sweep of another node, which comes every 60 s from
  that node's start on. The table therefore has the time from the start of the drain to the next sweep.

  At the end, each server must run on exactly one node and have the counter that was stored before the drain.
  """

  @compile {:no_warn_undefined, [DurableServer.Supervisor]}

  alias HandoffBench.Leftovers.{Cluster, Collector, Figures}
  alias HandoffBench.Options

  @defaults %{
    servers: 2_000,
    timeout_ms: 2_000,
    latency_ms: 10,
    slots: 8,
    receivers: 2,
    fail: 0,
    kill_target: false,
    kill_source: false,
    only: nil
  }

  @doc "Runs the measurement with command-line arguments and prints its table."
  @spec main([String.t()]) :: :ok
  def main(argv) do
    options = parse(argv)
    Cluster.start_distribution()
    names = if options.only, do: [String.to_existing_atom(options.only)], else: [:with, :without]
    runs = for name <- names, do: {name, run(options, name == :with)}
    Figures.print(options, runs)
    Options.write_json(options, Figures.json(options, runs))
    if Enum.any?(runs, fn {_name, run} -> run.wrong > 0 end), do: System.halt(1), else: :ok
  end

  defp parse(argv) do
    strict = [
      servers: :integer,
      timeout_ms: :integer,
      latency_ms: :integer,
      slots: :integer,
      receivers: :integer,
      fail: :string,
      kill_target: :boolean,
      kill_source: :boolean,
      only: :string
    ]

    options = Options.parse!(argv, strict, @defaults)
    if options.only not in [nil, "with", "without"], do: Mix.raise("--only takes with or without")
    %{options | fail: percent(options.fail)}
  end

  defp percent(number) when is_integer(number), do: number
  defp percent(text), do: text |> String.trim_trailing("%") |> String.to_integer()

  defp run(options, start_leftovers?) do
    {:ok, collector} = Collector.start_link()
    {:ok, store} = SimulatedStore.start_link(latency_ms: 0)
    handoff = [timeout_ms: options.timeout_ms, start_leftovers: start_leftovers?]
    [source | receivers] = nodes = Cluster.start(options.receivers + 1, handoff)
    started_ms = now_ms()
    keys = for index <- 1..options.servers, do: "s#{index}"
    :ok = Cluster.start_servers(hd(nodes), keys)
    :ok = Cluster.tell_the_end(source)

    SimulatedStore.configure(node(),
      latency_ms: options.latency_ms,
      slots: options.slots,
      error_rate: options.fail / 100
    )

    drain_ms = now_ms()
    ended_ms = stop(source, options)
    if options.kill_target, do: kill_target(receivers, keys)
    alive = Enum.filter(receivers, &(&1.name in Node.list()))
    :ok = await_all(alive, keys)
    events = Collector.events()

    SimulatedStore.configure(node(), latency_ms: 0, slots: :infinity, error_rate: 0.0)

    result = %{
      gaps: Figures.gaps(events, source.name, ended_ms),
      next_sweep_ms: started_ms + 60_000 - drain_ms,
      stats: SimulatedStore.stats(node()),
      wrong: Cluster.check(alive, keys)
    }

    Cluster.stop(alive)
    GenServer.stop(store)
    GenServer.stop(collector)
    result
  end

  # Stops the source. Returns when it was killed, in microseconds of wall-clock time; nil for SIGTERM.
  defp stop(source, %{kill_source: false}) do
    :ok = Cluster.signal(source, "TERM")
    nil
  end

  defp stop(source, %{kill_source: true}) do
    {:ok, _report} = :erpc.call(source.name, DurableHandoff, :drain, [Cluster.supervisor()], :infinity)
    killed_us = System.os_time(:microsecond)
    :ok = Cluster.signal(source, "KILL")
    killed_us
  end

  # Kills one receiver when it has started a twentieth of the servers.
  defp kill_target([target | _others], keys) do
    wait(fn -> Collector.started_on(target.name) > div(length(keys), 20) end)
    :ok = Cluster.signal(target, "KILL")
  end

  defp await_all(nodes, keys), do: wait(fn -> Cluster.count(nodes) >= length(keys) end)

  # 400 s: two sweeps (120 s), the expiry of a dead node's locks, and time for a slow store.
  defp wait(condition, deadline_ms \\ now_ms() + 400_000) do
    cond do
      condition.() -> :ok
      now_ms() > deadline_ms -> raise "servers are still missing after 400 s"
      true -> Process.sleep(100) && wait(condition, deadline_ms)
    end
  end

  defp now_ms, do: System.monotonic_time(:millisecond)
end
