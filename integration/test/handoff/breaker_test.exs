defmodule Handoff.BreakerTest do
  @moduledoc """
  When attempts keep failing, the drain ends and DurableServer's graceful shutdown stops the rest.
  """

  use HandoffCase, nodes: 2

  @tag guarantee: "A drain never makes things worse than no drain"
  test "every start on the target fails: the drain ends early, and most servers were never stopped",
       %{a: a, b: b} = context do
    [app_a, _app_b] = start_cluster(context)
    keys = start_broken(context, 20)
    assert {:ok, report} = drain(context, a, max_consecutive_failures: 3, max_concurrency: 1)
    assert %{moved: 0, ended: :failures, left: left} = report
    assert left |> Map.values() |> Enum.sum() == 20
    assert left.failures >= 15
    assert map_size(placement(context, [a])) >= 15
    assert reservations(context) == []

    # The rest shuts down as before: every state is stored, and a request starts the server.
    :ok = stop_children(a, app_a)
    for key <- keys, do: Troublesome.disarm(b, key, :init)

    for key <- keys do
      # A receiver may start the server at the same moment.
      options = [start: {Troublesome, %{key: key, count: 0}}, timeout: 60_000]
      assert {:ok, 0} = call(b, DurableHandoff, :call, [context.sup, key, :get, options])
    end

    assert map_size(placement(context, [b])) == 20
  end

  test "one module starts on no node: the report names it, and servers of other modules move at full speed",
       %{a: a, b: b} = context do
    start_cluster(context)
    start_broken(context, 30)
    others = start_servers(context, a, 20)
    # One attempt at a time, so that the thirty servers with priority are all tried before the others.
    options = [max_consecutive_failures: 3, max_concurrency: 1, modules: %{Troublesome => [priority: 10]}]
    assert {:ok, %{moved: 20, left: left, first_errors: errors} = report} = drain(context, a, options)
    assert left |> Map.values() |> Enum.sum() == 30
    # Most of these servers were not tried: the breaker of their module opened after a few failures.
    assert left.failures >= 25
    assert report.attempts < 30
    assert errors |> Enum.map(& &1.module) |> Enum.uniq() == [Troublesome]
    for key <- others, do: await_on(context, b, key, b)
  end

  @tag guarantee: "A drain never makes things worse than no drain"
  test "the store fails every request: nothing stays reserved once it is back", %{a: a} = context do
    start_cluster(context)
    keys = start_servers(context, a, 20)
    options = [max_concurrency: 2, concurrency: :fixed, max_consecutive_failures: 3, timeout_ms: 600_000]
    draining = start_held(context, 2, fn -> drain(context, a, options) end)
    SimulatedStore.configure(context.store, error_rate: 1.0)
    SimulatedStore.resume(context.store)
    assert {:ok, %{moved: 0, ended: :failures}} = await_task(draining)
    assert [_ | _] = reservations(context)

    SimulatedStore.configure(context.store, error_rate: 0.0)
    wait_until(fn -> drain_processes(a) == [] end)
    assert reservations(context) == []
    # Other nodes start what it had stopped.
    wait_until(fn -> Enum.sort(Map.keys(placement(context))) == Enum.sort(keys) end)
  end

  test "the write of the draining heartbeat times out: a warning, and the shutdown's drain goes on",
       %{a: a, b: b} = context do
    [app, _app_b] = start_cluster(context, handoff_on_shutdown: [timeout_ms: 60_000])
    # Their states show that the store takes writes.
    keys = start_unsynced(context, a, 5)
    listen_to_log(context, a)
    SimulatedStore.pause(context.store, {:put, storage_key(context, "__nodes/#{a}")})
    stopping = Task.async(fn -> stop_children(a, app) end)
    {:warning, _line} = await_log(a, :mark_failed)
    {:info, %{report: report}} = await_log(a, :drain_ended)
    assert %{moved: 5, ended: :done} = report
    SimulatedStore.resume(context.store)
    assert :ok = await_task(stopping)
    assert_all_run_on(%{context | nodes: [b]}, keys, [b])
  end

  test "occasional store errors: no state is lost, nothing stays reserved, and every server can be started",
       %{a: a, b: b} = context do
    start_cluster(context)
    keys = start_unsynced(context, a, 30)
    SimulatedStore.configure(context.store, error_rate: 0.05)
    assert {:ok, %{total: 30} = report} = drain(context, a, max_attempts: 20)
    SimulatedStore.configure(context.store, error_rate: 0.0)
    assert report.moved + Enum.sum(Map.values(report.left)) == 30
    wait_until(fn -> drain_processes(a) == [] end)
    assert reservations(context) == []

    await_startable(context, b, keys)
    assert_counts(context, keys, 1)
  end

  # Servers on a that cannot start on b.
  defp start_broken(%{a: a, b: b} = context, count) do
    for n <- 1..count, key = "t#{n}" do
      start_server(context, a, Troublesome, key, %{count: 0})
      Troublesome.arm(b, key, :init, :raise)
      key
    end
  end
end
