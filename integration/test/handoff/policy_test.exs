defmodule Handoff.PolicyTest do
  @moduledoc "Which servers move, and in which order."

  use HandoffCase, nodes: 2

  @tag guarantee: "Nothing is lost that a graceful shutdown would have kept"
  test "servers of an excluded module stay, and the graceful shutdown stores their last state",
       %{a: a, b: b} = context do
    [app, _app_b] = start_cluster(context, handoff_on_shutdown: [modules: %{Troublesome => false}])
    1 = ask(start_server(context, a, Troublesome, "t", %{count: 0}), :add)
    start_server(context, a, Counter, "c")
    :ok = stop_children(a, app)
    await_all_on(context, ["c"], [b])
    assert %{meta: %{status: :stopped_graceful}, state: %{"count" => 1}} = stored(context, "t")
  end

  test "a server with handoff: false in its meta stays, and is reported as excluded", %{a: a, b: b} = context do
    start_cluster(context)
    start_server(context, a, Counter, "stays", %{meta: %{handoff: false}})
    start_server(context, a, Counter, "moves")
    assert {:ok, %{total: 2, moved: 1, left: left}} = drain(context, a)
    assert left == %{excluded: 1}
    assert placement(context) == %{"stays" => a, "moves" => b}
  end

  test "higher priorities move first", %{a: a} = context do
    # Otherwise the read of a heartbeat would be held as well.
    start_cluster(context, quiet(context))
    start_servers(context, a, 10)
    for key <- ["p1", "p2"], do: start_server(context, a, Troublesome, key, %{count: 0})
    options = [max_concurrency: 2, modules: %{Troublesome => [priority: 10]}]
    draining = start_held(context, 2, fn -> drain(context, a, options) end, "")
    held = for {:get, key} <- SimulatedStore.paused(context.store), do: key
    assert Enum.sort(held) == for(key <- ["p1", "p2"], do: storage_key(context, key))
    SimulatedStore.resume(context.store)
    assert {:ok, %{moved: 12}} = await_task(draining)
  end

  test "eligible: a function of key, module and meta", %{a: a, b: b} = context do
    start_cluster(context)
    start_servers(context, a, 3)
    assert {:ok, %{moved: 2, left: %{excluded: 1}}} = drain(context, a, eligible: &HandoffCase.not_s1/1)
    assert placement(context) == %{"s1" => a, "s2" => b, "s3" => b}
  end

  test "eligible: a function that raises excludes no server, and is logged once", %{a: a} = context do
    start_cluster(context)
    start_servers(context, a, 3)
    listen_to_log(context, a)
    assert {:ok, %{moved: 3}} = drain(context, a, eligible: &HandoffCase.broken_policy/1)
    assert_receive {:log, ^a, :warning, :policy_ignored, %{servers: 3, problem: problem}}
    assert problem =~ "told to raise"
    refute_received {:log, ^a, :warning, _another, _metadata}
  end

  test "eligible: a function that waits excludes no server, and the drain goes on after a quarter of its time",
       %{a: a} = context do
    start_cluster(context)
    start_servers(context, a, 3)
    hold_policy(a)
    listen_to_log(context, a)
    assert {:ok, %{moved: 3}} = drain(context, a, timeout_ms: 8_000, eligible: &HandoffCase.held_policy/1)
    assert_receive {:log, ^a, :warning, :policy_ignored, %{problem: problem}}
    assert problem =~ "no answer in time"
  end

  test "eligible: :permanent reads the store once for each server that no other rule decides",
       %{a: a, b: b} = context do
    start_cluster(context, quiet(context))
    for n <- 1..3, do: start_server(context, a, Counter, "permanent#{n}", %{permanent: true})
    for n <- 1..3, do: start_server(context, a, Counter, "temporary#{n}", %{permanent: false})
    start_server(context, a, Counter, "own_word", %{permanent: false, meta: %{handoff: true}})
    SimulatedStore.reset_stats(context.store)
    assert {:ok, %{total: 7, moved: 4, left: left, attempts: attempts}} = drain(context, a, eligible: :permanent)
    assert left == %{excluded: 3}
    # Six reads for the policy, and one for each attempt: a target whose registry lags causes another attempt.
    assert SimulatedStore.stats(context.store).get == 6 + attempts
    on_b = for {key, ^b} <- placement(context), do: key
    assert Enum.sort(on_b) == ["own_word", "permanent1", "permanent2", "permanent3"]
  end

  test "no read of eligible: :permanent, which takes a fifth of its time at most, begins in the last fifth",
       %{b: b} = context do
    {a, context} = with_own_clock(context, [b])
    FrozenClock.freeze(a)
    start_cluster(context)
    [first | _others] = keys = start_servers(context, a, 3)
    hold_reads(context)
    reading = Task.async(fn -> call(a, DurableHandoff.Host, :info_each, [keys, context.sup, 1, 600_000]) end)
    await_held(context, 1)
    FrozenClock.advance(a, 480_000)
    SimulatedStore.resume(context.store)
    assert [{^first, {:ok, _info}}] = await_task(reading)
  end

  @tag guarantee: "The node never waits longer than `timeout_ms`"
  test "eligible: :permanent on a store that does not respond: all servers count as permanent before the deadline",
       %{a: a} = context do
    start_cluster(context)
    start_servers(context, a, 3, Counter, %{permanent: false})
    # Only the reads for the policy are held: they come before the node stops a server, and the reads of a
    # move come afterwards.
    hold_reads(context)
    draining = Task.async(fn -> drain(context, a, eligible: :permanent, timeout_ms: 8_000) end)
    wait_until(fn -> length(SimulatedStore.paused(context.store)) >= 3 end)
    wait_until(fn -> match?({:ok, %{progress: %{in_flight: 3}}}, status(context, a)) end)
    SimulatedStore.resume(context.store)
    assert {:ok, %{moved: 3}} = await_task(draining)
  end
end
