defmodule Handoff.CancelTest do
  @moduledoc "A drain on request: started without waiting for it, joined, cancelled."

  use LeftoversCase, nodes: 2

  test "await: false returns at once, and status has the report when the drain has ended", %{a: a, b: b} = context do
    start_cluster(context, unswept(context))
    keys = start_servers(context, a, 3)
    hold_reads(context)
    assert {:ok, :started} = drain(context, a, await: false)
    wait_until(fn -> match?({:ok, %{state: :draining, progress: %{in_flight: 3}}}, status(context, a)) end)
    assert {:ok, :joined} = drain(context, a, await: false)
    SimulatedStore.resume(context.store)
    wait_until(fn -> match?({:ok, %{state: :drained, report: %{moved: 3, total: 3}}}, status(context, a)) end)
    assert_all_run_on(context, keys, [b])
  end

  test "a second drain that finds no server leaves the report of the first", %{a: a} = context do
    start_cluster(context, unswept(context))
    start_servers(context, a, 3)
    assert {:ok, %{moved: 3}} = drain(context, a)
    assert {:ok, %{total: 0}} = drain(context, a)
    assert {:ok, %{state: :drained, report: %{total: 3, moved: 3}}} = status(context, a)
  end

  test "drain/2 joins a running drain that was started with await: false", %{a: a} = context do
    start_cluster(context, unswept(context))
    start_servers(context, a, 2)
    hold_reads(context)
    assert {:ok, :started} = drain(context, a, await: false)
    joined = Task.async(fn -> drain(context, a) end)
    wait_until(fn -> drain_waiters(context, a) == 1 end)
    SimulatedStore.resume(context.store)
    assert {:ok, %{moved: 2}} = await_task(joined)
  end

  test "cancel: moves in flight end, the other servers keep running here, and the node stays cordoned",
       %{a: a, b: b} = context do
    start_cluster(context, unswept(context, max_concurrency: 1))
    keys = start_known(context, a, 4, b)
    listen_to_log(context, a)
    draining = start_held(context, 1, fn -> drain(context, a) end)
    for _once_and_again <- 1..2, do: assert(:ok = call(a, DurableHandoff, :cancel, [context.sup]))
    await_heard(context, b)
    SimulatedStore.resume(context.store)

    assert {:ok, %{ended: :cancelled, moved: 1, left: %{cancelled: 3}, adopted_later: 0}} = await_task(draining)
    assert {:ok, %{state: :cancelled, marked: true}} = status(context, a)
    assert context |> placement() |> Map.values() |> Enum.frequencies() == %{a => 3, b => 1}
    assert Enum.sort(Map.keys(placement(context))) == Enum.sort(keys)
    assert held(context, b) == %{}
    {:warning, _line} = await_log(a, :drain_cancelled, %{shutdown: false})
    {:warning, _line} = await_log(a, :drain_ended)
    refute_received {:log, ^a, :warning, :drain_cancelled, _metadata}
    wait_until(fn -> a not in eligible(context, b) end)
  end

  test "cancel: a server that has ended by itself while it waited for its turn is started nowhere",
       %{a: a, b: b} = context do
    start_cluster(context, unswept(context, max_concurrency: 1))
    keys = start_servers(context, a, 4, Counter, %{permanent: false})
    for key <- keys, do: await_on(context, b, key, a)
    draining = start_held(context, 1, fn -> drain(context, a) end)
    [{:get, held}] = SimulatedStore.paused(context.store)
    ended = hd(keys -- [String.replace_prefix(held, context.opts[:prefix], "")])
    pid = whereis(context, a, ended)
    :ok = ask(pid, {:stop, :normal})
    await_down(pid)
    :ok = call(a, DurableHandoff, :cancel, [context.sup])
    await_heard(context, b)
    SimulatedStore.resume(context.store)
    assert {:ok, %{ended: :cancelled, moved: 1, left: %{cancelled: 3}, adopted_later: 0}} = await_task(draining)
    assert held(context, b) == %{}
    assert Enum.sort(Map.keys(placement(context))) == keys -- [ended]
  end

  test "a shutdown after a cancelled drain moves the rest", %{a: a, b: b} = context do
    [app, _app] = start_cluster(context, unswept(context, max_concurrency: 1))
    keys = start_servers(context, a, 3)
    hold_reads(context)
    assert {:ok, :started} = drain(context, a, await: false)
    wait_until(fn -> SimulatedStore.paused(context.store) != [] end)
    :ok = call(a, DurableHandoff, :cancel, [context.sup])
    SimulatedStore.resume(context.store)
    wait_until(fn -> match?({:ok, %{report: %{ended: :cancelled}}}, status(context, a)) end)
    :ok = stop_children(a, app)
    await_all_on(context, keys, [b])
  end

  test "cancel during a shutdown: no second drain, and the remaining servers are offered to other nodes",
       %{a: a, b: b} = context do
    [app, _app] = start_cluster(context, unswept(context, max_concurrency: 1))
    keys = start_servers(context, a, 4)
    listen_to_log(context, a)
    stopping = start_held(context, 1, fn -> stop_children(a, app) end)
    assert :ok = call(a, DurableHandoff, :cancel, [context.sup])
    SimulatedStore.resume(context.store)
    {:warning, _line} = await_log(a, :drain_cancelled, %{shutdown: true})
    assert :ok = await_task(stopping)
    await_all_on(context, keys, [b])
  end

  test "there is nothing to cancel: an error, not a crash", %{a: a, b: b} = context do
    start_handoff(context, a)
    start_host(b, context.opts)
    assert call(a, DurableHandoff, :cancel, [context.sup]) == {:error, :not_draining}
    assert call(b, DurableHandoff, :cancel, [context.sup]) == {:error, :no_drainer}
    assert drain(context, b, await: false) == {:error, :no_drainer}
    assert_raise ArgumentError, ~r/:await got 5, expected true or false/, fn -> drain(context, a, await: 5) end
  end
end
