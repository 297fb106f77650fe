defmodule Handoff.PlanTest do
  @moduledoc "The dry run shows what a drain would do, and changes nothing."

  use HandoffCase, nodes: 3, patient: true

  defp plan(context, node, overrides \\ []), do: call(node, DurableHandoff, :plan, [context.sup, overrides])

  test "a plan has targets, the servers that stay with the reason, and an estimate", %{a: a, b: b, c: c} = context do
    start_cluster(context)
    keys = start_servers(context, a, 8)
    start_server(context, a, Counter, "stays", %{meta: %{handoff: false}})
    SimulatedStore.configure(context.store, latency_ms: 5)

    {:ok, plan} = plan(context, a, max_concurrency: 4)
    assert %{total: 9, left: %{excluded: 1}, targets: targets} = plan
    assert targets == %{Atom.to_string(b) => 4, Atom.to_string(c) => 4}
    assert plan.moves |> Enum.map(& &1.key) |> Enum.sort() == Enum.sort(keys)
    assert plan.stays == [%{key: "stays", module: Counter, reason: :excluded}]
    assert %{round_trip_ms: round_trip_ms, drain_ms: drain_ms, fit: 8} = plan.estimate
    assert round_trip_ms >= 5
    # Eight servers, four at a time, four round trips each.
    assert drain_ms >= 8 * round_trip_ms
    assert to_string(plan) =~ "8 of 9 servers would move to"
  end

  test "a node's servers are counted without listing them, or listed if their supervisor does not answer",
       %{a: a} = context do
    # A heartbeat counts them, too.
    start_cluster(context, quiet(context))
    start_servers(context, a, 5)
    dynamic = {:"#{context.sup}_dynamic", a}
    listing = {DurableServer.Supervisor, :__local_global_members__, 1}
    1 = call(a, :erlang, :trace_pattern, [listing, true, [:call_count]])
    assert call(a, DurableHandoff.Host, :count, [context.sup]) == 5
    assert call(a, :erlang, :trace_info, [listing, :call_count]) == {:call_count, 0}
    :ok = :sys.suspend(dynamic)
    assert call(a, DurableHandoff.Host, :count, [context.sup]) == 5
    assert call(a, :erlang, :trace_info, [listing, :call_count]) == {:call_count, 1}
    :ok = :sys.resume(dynamic)
    assert {:ok, %{moved: 5}} = drain(context, a)
    assert Enum.sum(for node <- context.nodes, do: call(node, DurableHandoff.Host, :count, [context.sup])) == 5
    assert call(a, DurableHandoff.Host, :count, [context.sup]) == 0
  end

  test "a plan marks, stops, writes and reserves nothing", %{a: a, b: b} = context do
    start_cluster(context, quiet(context))
    keys = start_servers(context, a, 5)
    SimulatedStore.reset_stats(context.store)
    assert {:ok, %{total: 5}} = plan(context, a)

    assert %{put: 0, claim: 0, delete: 0, get: 3} = SimulatedStore.stats(context.store)
    assert_all_run_on(context, keys, [a])
    assert a in eligible(context, b)
    assert {:ok, %{state: :idle}} = status(context, a)
    assert is_pid(start_server(context, a, Counter, "after"))
  end

  test "a store that serves few requests at a time: the estimate is at least what its slots allow", %{a: a} = context do
    start_cluster(context)
    SimulatedStore.configure(context.store, latency_ms: 20, slots: 2)
    start_servers(context, a, 60)
    {:ok, %{estimate: estimate, timeout_ms: 30_000}} = plan(context, a)
    # 60 moves, four requests each, two at a time. `bench estimate` compares estimates with drains.
    assert estimate.drain_ms > 60 * 4 * 20 / 2 * 0.5
    assert estimate.fit == 60
    {:ok, %{moved: 60}} = drain(context, a)
    {:ok, %{estimate: nil}} = plan(context, a)
  end

  test "a drain whose servers have stored their states needs no reads for its estimate", %{a: a} = context do
    start_cluster(context, quiet(context))
    start_unsynced(context, a, 70)
    listen_to_log(context, a)
    SimulatedStore.configure(context.store, latency_ms: 5, slots: 2)
    SimulatedStore.reset_stats(context.store)
    {:ok, %{moved: 70, attempts: attempts}} = drain(context, a)
    {_level, %{drain_ms: drain_ms}} = await_log(a, :estimate)
    # 70 moves, four requests each, two at a time.
    assert drain_ms > 70 * 4 * 5 / 2 * 0.5
    # An attempt makes one read.
    assert SimulatedStore.stats(context.store).get <= attempts + 5
  end

  test "an estimate above timeout_ms has the number of servers that fit", %{a: a} = context do
    start_cluster(context)
    SimulatedStore.configure(context.store, latency_ms: 50, slots: 1)
    start_servers(context, a, 10)
    {:ok, plan} = plan(context, a, timeout_ms: 500)
    assert plan.estimate.drain_ms > 500
    assert plan.estimate.fit < 10
  end

  test "a drain moves the servers as planned", %{a: a, b: b, c: c} = context do
    # A heartbeat between plan and drain would change the drain's view, and so would a target that is given up.
    start_cluster(context, [placement_erpc_timeout_cross_region_ms: 60_000] ++ quiet(context))
    keys = start_servers(context, a, 10)
    {:ok, plan} = plan(context, a)
    {:ok, report} = drain_heard(context, a, [b, c])
    assert report.targets == plan.targets
    assert_all_run_on(context, keys, [b, c])
  end

  test "without servers or without a store: an empty plan and no estimate", %{a: a} = context do
    start_cluster(context)
    assert {:ok, %{total: 0, moves: [], stays: [], estimate: nil}} = plan(context, a)
    start_servers(context, a, 2)
    SimulatedStore.configure(context.store, error_rate: 1.0)
    assert {:ok, %{total: 2, estimate: nil}} = plan(context, a)
  end

  test "wrong options raise", %{a: a} = context do
    start_cluster(context)
    assert_raise ArgumentError, ~r/did you mean :prefer/, fn -> plan(context, a, preferr: :none) end
  end
end
