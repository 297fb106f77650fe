defmodule Handoff.TargetTroubleTest do
  @moduledoc "A target dies, refuses, times out or disconnects in the middle of an attempt."

  use HandoffCase, nodes: 3

  test "target dies between stop and start: the server moves to another", %{a: a} = context do
    # Two nodes of this test only, because one of them is killed.
    [doomed, other] = start_nodes(2)
    context = %{context | nodes: [a, doomed]}
    start_cluster(context)
    start_server(context, a, Counter, "k", %{count: 7})
    draining = start_held(context, 1, fn -> drain(context, a) end, "k")
    start_handoff(context, other)
    await_view_of(context, a, other)

    kill(doomed)
    SimulatedStore.resume(context.store)

    assert {:ok, %{total: 1, moved: 1, targets: targets}} = await_task(draining)
    assert targets == %{Atom.to_string(other) => 1}
    assert ask(await_on(context, other, "k", other), :get) == 7
    assert reservations(context) == []
  end

  test "the only target dies between stop and start: the reservation is cleared and the server reported",
       %{a: a} = context do
    doomed = start_node()
    context = %{context | nodes: [a, doomed]}
    start_cluster(context)
    keys = start_servers(context, a, 2)
    draining = start_held(context, 1, fn -> drain(context, a, max_concurrency: 1) end, "s1")
    kill(doomed)
    SimulatedStore.resume(context.store)

    assert {:ok, %{moved: 0, total: 2, left: left, first_errors: [%{key: "s1"} | _]}} = await_task(draining)
    assert left |> Map.values() |> Enum.sum() == 2
    assert reservations(context) == []
    # The displaced server waits for a request; the other one still runs.
    assert Map.keys(placement(%{context | nodes: [a]})) == keys -- ["s1"]
  end

  test "many nodes go down at once: the drain builds one new view, not one for each", %{a: a} = context do
    start_cluster(context)
    start_server(context, a, Counter, "k")
    draining = start_held(context, 1, fn -> drain(context, a) end, "k")
    [drain] = drain_processes(a, [DurableHandoff.Drain])
    {relay, true} = Relay.start(a, {:erlang, :suspend_process, [drain]})
    for n <- 1..100, do: send(drain, {:nodedown, :"gone#{n}@127.0.0.1", []})
    refresh = {DurableHandoff.Drain.Snapshot, :refresh, 1}
    1 = call(a, :erlang, :trace_pattern, [refresh, true, [:call_count]])
    on_exit(fn -> call(a, :erlang, :trace_pattern, [refresh, false, [:call_count]]) end)
    true = Relay.call(relay, {:erlang, :resume_process, [drain]})
    SimulatedStore.resume(context.store)

    # Other messages cause a few more.
    assert {:ok, %{moved: 1}} = await_task(draining)
    assert {:call_count, views} = call(a, :erlang, :trace_info, [refresh, :call_count])
    assert views in 1..50
  end

  test "target has become full: the servers move to others", %{a: a, b: b, c: c} = context do
    start_handoff(context, a)
    start_handoff(context, b, max_children: 2)
    start_handoff(context, c)
    await_heartbeats([a, b, c], context.sup)
    # The servers start after the heartbeat; the next one is seconds away.
    for key <- ["x1", "x2"], do: start_server(context, b, Counter, key)
    keys = start_servers(context, a, 6)

    assert {:ok, %{total: 6, moved: 6}} = drain(context, a)
    assert_all_run_on(context, ["x1", "x2" | keys], [b, c])
    assert placement(context) |> Map.take(keys) |> Map.values() |> Enum.uniq() == [c]
  end

  test "target no longer runs the supervisor: the servers move to another", %{a: a, b: b, c: c} = context do
    [_app_a, app_b, _app_c] = start_cluster(context)
    keys = start_servers(context, a, 4)
    before = heartbeat_row(context, a, b)
    stop_children(b, app_b)
    forget_draining(context, a, b, before)

    assert {:ok, %{total: 4, moved: 4}} = drain(context, a)
    assert placement(context, [a, c]) == Map.new(keys, &{&1, c})
  end

  @tag guarantee: "Nothing runs twice"
  test "start on the target takes too long: reported; the server runs once, and no reservation remains",
       %{a: a, b: b, c: c} = context do
    start_cluster(context, placement_erpc_timeout_cross_region_ms: 1_000)
    start_server(context, a, Troublesome, "k", %{count: 1})
    keys = start_servers(context, a, 4)
    for node <- [b, c], do: Troublesome.arm(node, "k", :init, :hang)

    assert {:ok, %{total: 5, moved: 4, left: left}} = drain(context, a)
    assert left |> Map.values() |> Enum.sum() == 1

    # The start on the first target continues. The store decides whether it succeeds.
    for node <- [b, c], do: Troublesome.disarm(node, "k", :init)
    wait_until(fn -> match?({:ok, _}, ensure_started(context, b, "k", Troublesome, %{key: "k", count: 0})) end)
    wait_until(fn -> map_size(placement(context)) == 5 end)
    assert_all_run_on(context, ["k" | keys], [b, c])
  end

  test "the start's response is lost, but the server runs on the target: it counts as moved", %{a: a, b: b} = context do
    context = %{context | nodes: [a, b]}
    start_cluster(context, placement_erpc_timeout_cross_region_ms: 200)
    start_server(context, a, Troublesome, "k", %{count: 1})
    Troublesome.arm(b, "k", :init, :hang)
    draining = Task.async(fn -> drain(context, a) end)
    wait_until(fn -> stored(context, "k").meta.node_str == Atom.to_string(b) end)
    # The call times out, and the attempt reads the store. That read is held; when it is released it finds the
    # server.
    hold_reads(context, "k")
    await_held(context, 1)
    Troublesome.disarm(b, "k", :init)
    await_on(context, a, "k", b)
    SimulatedStore.resume(context.store)
    assert {:ok, %{total: 1, moved: 1}} = await_task(draining)
    assert placement(context) == %{"k" => b}
    assert reservations(context) == []
  end

  test "the connection is lost during a start that succeeds: when it is back, the server is not stopped again",
       %{a: a, b: b} = context do
    context = %{context | nodes: [a, b]}
    start_cluster(context)
    [key] = start_known(context, a, 1, b)
    options = [wait_for_target_ms: 60_000, timeout_ms: 120_000, reconnect: false]
    draining = start_held(context, 1, fn -> drain(context, a, options) end)
    await_heard(context, b)
    # The claim of the target.
    hold(context, [:put])
    :ok = SimulatedStore.step(context.store)
    await_held(context, 1)
    disconnect(a, b)
    wait_until(fn -> match?({:ok, %{progress: %{displaced: 1}}}, status(context, a)) end)
    SimulatedStore.resume(context.store)
    pid = await_on(context, b, key, b)
    0 = ask(pid, :get)

    [drain] = drain_processes(a, [DurableHandoff.Drain])
    {relay, true} = Relay.start(a, {:erlang, :suspend_process, [drain]})
    reconnect(a, b)
    ^pid = await_on(context, a, key, b)
    true = Relay.call(relay, {:erlang, :resume_process, [drain]})

    assert {:ok, %{total: 1, moved: 1}} = await_task(draining)
    assert whereis(context, b, key) == pid
    assert_all_run_on(context, [key], [b])
  end

  test "a node that joins during a drain gets servers, too", %{a: a, b: b, c: c} = context do
    context = %{context | nodes: [a, b]}
    start_cluster(context)
    keys = start_servers(context, a, 12)
    draining = start_held(context, 2, fn -> drain(context, a, max_concurrency: 2, concurrency: :fixed) end)
    start_handoff(context, c)
    await_view_of(context, a, c)
    SimulatedStore.resume(context.store)

    assert {:ok, %{moved: 12, targets: targets}} = await_task(draining)
    assert Map.has_key?(targets, Atom.to_string(c))
    assert_all_run_on(%{context | nodes: [a, b, c]}, keys, [b, c])
  end

  # Waits until a drain on `node` has seen the cluster with `target`, which it reports once a second.
  defp await_view_of(context, node, target) do
    await_heartbeats([node, target], context.sup)
    listen_to_log(context, node)
    for _one_before_and_one_after_it_looked <- 1..2, do: {:info, _progress} = await_log(node, :drain_progress)
  end

  defp forget_draining(context, node, of, row) do
    wait_until(fn -> of not in members(context, node) end)
    put_row(context, node, row, 0)
  end

  defp members(context, node) do
    for {pid, _meta} <- call(node, Group, :members, [context.sup, "__heartbeat"]), do: node(pid)
  end
end
