defmodule HandoffBench.Plan do
  @moduledoc """
  How long planning takes: one call of the engine for all servers, compared with one call of DurableServer's
  own placement for each server.

  Both see the same cluster: the heartbeats of fictitious nodes in the store, which DurableServer reads like
  those of real nodes. The library gets them through `DurableHandoff.Host.View`. DurableServer places only a
  sample of the servers, because all of them would take minutes; its time is extrapolated. Then the engine
  alone plans three sizes, to show how time and memory grow.
  """

  @compile {:no_warn_undefined, [DurableServer.Supervisor, DurableServer.LifecycleManager]}

  alias DurableHandoff.{Clock, Host, Native}
  alias HandoffBench.{Nodes, Options, Timing}

  @sup HandoffBench.Durable
  @modules [HandoffBench.A, HandoffBench.B, HandoffBench.C]
  @sizes [250_000, 500_000, 1_000_000]

  @doc "Runs the measurement with command-line arguments and prints its tables."
  @spec main([String.t()]) :: :ok
  def main(argv) do
    strict = [servers: :integer, nodes: :integer, calls: :integer]
    options = Options.parse!(argv, strict, %{servers: 100_000, nodes: 1_000, calls: 2_000})
    start_host(options.nodes)
    view = Host.View.build(@sup, @modules, [])

    host = host(options)
    engine = engine(options.servers, view)
    sizes = Enum.map(@sizes, &engine(&1, view))
    print(options, host, engine, sizes)
    ratio = host.all_ms / engine.ms
    Options.write_json(options, %{nodes: options.nodes, host: host, engine: engine, ratio: ratio, sizes: sizes})
    :ok
  end

  # The heartbeats of the fictitious nodes are in the store before DurableServer starts, which reads them like
  # those of real nodes.
  defp start_host(nodes) do
    {:ok, _store} = SimulatedStore.start_link(latency_ms: 0)
    {:ok, %{state: store}} = SimulatedStore.init_backend(node: node())

    for {name, heartbeat} <- pretended(nodes) do
      {:ok, _written} = SimulatedStore.put_object(store, "bench/__nodes/#{name}", heartbeat, [])
    end

    {:ok, _sup} =
      DurableServer.Supervisor.start_link(name: @sup, prefix: "bench/", backend: {SimulatedStore, node: node()})

    Nodes.await(fn -> length(Host.View.build(@sup, @modules, []).nodes) > nodes end)
  end

  # Nodes of three kinds: with a total limit, with module limits, without limits; all with room.
  defp pretended(count) do
    now_ms = System.system_time(:millisecond)

    for index <- 1..count do
      used = rem(index * 7, 90)
      limit = %{"current" => used, "limit" => 1_000_000}

      capacity =
        case rem(index, 3) do
          0 -> %{"total" => limit}
          1 -> Map.new(@modules, &{Atom.to_string(&1), limit})
          2 -> nil
        end

      name = "n#{index}@pretended"
      # DurableServer skips nodes whose names do not exist as atoms in this VM.
      _heard_of = String.to_atom(name)

      {name,
       %{
         "node" => name,
         "node_ref" => now_ms * 1_000,
         "last_heartbeat_at" => now_ms - rem(index, 900),
         "capacity" => capacity,
         "resources" => %{"cpu" => used, "max_cpu" => 95},
         "env_vars" => %{},
         "heartbeat_meta" => %{
           "durable_handoff" => %{"generation" => "1", "started_at" => now_ms - 86_400_000, "servers" => used}
         }
       }}
    end
  end

  defp host(%{calls: calls, servers: servers, nodes: nodes}) do
    ask = fn index ->
      module = Enum.at(@modules, rem(index, 3))

      found =
        DurableServer.LifecycleManager.find_eligible_nodes(@sup, module, limit: nodes, key: nil, sticky_placement: nil)

      ^nodes = length(found)
    end

    Enum.each(1..50, ask)
    {us, :ok} = :timer.tc(fn -> Enum.each(1..calls, ask) end)
    %{calls: calls, per_call_us: us / calls, all_ms: us / calls * servers / 1_000}
  end

  # The engine runs in a process of its own, so that its terms are released before the next size is measured.
  defp engine(servers, view) do
    Task.await(Task.async(fn -> measure_engine(servers, view) end), :infinity)
  end

  defp measure_engine(servers, view) do
    # A fictitious node cannot be connected, and the planner chooses connected nodes only.
    view = %{view | nodes: Enum.map(view.nodes, &%{&1 | connected: true})}
    entries = for index <- 1..servers, do: {rem(index, 3), 0, 0}
    config = config()
    reset_peak()
    before_kb = resident_kb("VmRSS")
    started = Clock.now_us()
    {:ok, plan} = Native.plan(config, entries, view)
    us = Clock.now_us() - started
    peak_kb = resident_kb("VmHWM") - before_kb
    # Every server has a target: a negative number would be a reason.
    true = Enum.all?(for <<number::signed-little-32 <- plan.assignment>>, do: number >= 0)
    %{servers: servers, ms: us / 1_000, ns_per_server: us * 1_000 / servers, peak_mb: peak_kb / 1_024}
  end

  defp config do
    DurableHandoff.Options.new!(true)
    |> DurableHandoff.Options.engine()
    |> Map.merge(%{
      timeout_ms: 30_000,
      attempt_timeout_ms: 15_000,
      wait_for_target_ms: 0,
      wait_for_lost_ms: 0,
      source: %{name: Atom.to_string(node()), started_at_ms: nil, generation: nil, region: nil},
      stickies: [[]],
      modules: length(@modules),
      future_skew_ms: 5_000,
      max_age_ms: 50_000
    })
  end

  # Linux keeps the peak of resident memory and lets it be reset; elsewhere the column is zero.
  defp reset_peak, do: File.write("/proc/self/clear_refs", "5")

  defp resident_kb(field) do
    with {:ok, status} <- File.read("/proc/self/status"),
         [_all, kb] <- Regex.run(~r/^#{field}:\s+(\d+) kB/m, status) do
      String.to_integer(kb)
    else
      _unknown -> 0
    end
  end

  defp print(options, host, engine, sizes) do
    IO.puts("""
    Planning #{options.servers} servers onto #{options.nodes} nodes, Elixir #{System.version()}, OTP #{System.otp_release()}

      find_eligible_nodes, one call a server   #{ms(host.all_ms)} ms   (#{host.calls} calls at #{round(host.per_call_us)} us, scaled up)
      the engine, all at once                  #{ms(engine.ms)} ms
      ratio                                    #{round(host.all_ms / engine.ms)}

      servers      ms        ns per server   peak memory, MB
    """)

    for size <- sizes do
      columns = [{size.servers, 10}, {ms(size.ms), 10}, {round(size.ns_per_server), 14}, {ms(size.peak_mb), 16}]
      IO.puts("  " <> Enum.map_join(columns, " ", fn {value, width} -> String.pad_trailing("#{value}", width) end))
    end
  end

  defp ms(number), do: Timing.decimals(number, 1)
end
