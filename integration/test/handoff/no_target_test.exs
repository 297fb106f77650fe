defmodule Handoff.NoTargetTest do
  @moduledoc "No target: the drain stops no server, returns at once, and gives the reason."

  use HandoffCase, nodes: 2, patient: true

  @tag guarantee: "A drain never makes things worse than no drain"
  test "the only other node was cordoned a moment ago: nothing is done", %{a: a, b: b} = context do
    start_cluster(context, heartbeat_interval_ms: 10_000)
    start_server(context, a, Counter, "k")
    # Only the mark: no node has been told.
    {:ok, :cordoned} = call(b, DurableHandoff.Host.Mark, :cordon, [context.sup])
    assert drain(context, a) == {:error, :no_peers}
    assert {:ok, %{cordoned: false}} = status(context, a)
  end

  test "no other node", %{a: a} = context do
    start_handoff(context, a)
    pid = start_server(context, a, Counter, "k")
    assert {:ok, %{total: 1, left: %{no_target: 1}, attempts: 0, ended: :done}} = drain(context, a, force: true)
    assert whereis(context, a, "k") == pid
  end

  test "drain/2 without another node: refused, and the node still starts servers", %{a: a} = context do
    start_handoff(context, a)
    start_server(context, a, Counter, "k")
    assert drain(context, a) == {:error, :no_peers}
    assert drain(context, a, await: false) == {:error, :no_peers}
    assert {:ok, %{state: :idle, marked: false}} = status(context, a)
    assert is_pid(start_server(context, a, Counter, "k2"))
  end

  test "the only other node is draining too", %{a: a, b: b} = context do
    start_cluster(context)
    pid = start_server(context, a, Counter, "k")
    {:ok, _report} = drain(context, b)
    wait_until(fn -> b not in eligible(context, a) end)
    assert {:ok, %{moved: 0, left: %{no_target: 1}, attempts: 0}} = drain(context, a, force: true)
    assert whereis(context, a, "k") == pid
  end

  test "the other node has a heartbeat but no connection", %{a: a, b: b} = context do
    start_cluster(context)
    pid = start_server(context, a, Counter, "k")
    disconnect(a, b)
    options = [force: true, wait_for_target_ms: 0]
    assert {:ok, %{moved: 0, left: %{no_target: 1}, attempts: 0}} = drain(context, a, options)
    assert whereis(context, a, "k") == pid
    reconnect(a, b)
  end

  @tag guarantee: "A drain never makes things worse than no drain"
  test "the other node's heartbeat is that of a supervisor of another name with the same prefix",
       %{a: a, b: b} = context do
    start_handoff(context, a)
    pid = start_server(context, a, Counter, "k")
    start_handoff(context, b, name: :"#{context.sup}_renamed")
    wait_until(fn -> match?([_a, _b], call(a, DurableHandoff.Host.View, :build, [context.sup, [], []]).nodes) end)

    assert {:ok, %{moves: [], left: %{no_target: 1}}} = call(a, DurableHandoff, :plan, [context.sup])
    assert drain(context, a) == {:error, :no_peers}
    assert {:ok, %{moved: 0, left: %{no_target: 1}, attempts: 0}} = drain(context, a, force: true)
    assert {:error, {:not_moved, %{reason: :no_target}}} = call(a, DurableHandoff, :move, [context.sup, "k", [to: b]])
    assert whereis(context, a, "k") == pid

    findings = call(a, DurableHandoff.Doctor, :run, [[supervisors: [context.sup]]])
    problems = for %{check: :cluster, state: :problem, text: text} <- findings, do: text
    assert Enum.any?(problems, &(&1 =~ Atom.to_string(b)))
  end

  @tag guarantee: "A drain never makes things worse than no drain"
  test "the other node's supervisor has the same name and another prefix", %{a: a, b: b} = context do
    start_handoff(context, a)
    pid = start_server(context, a, Counter, "k")
    start_handoff(context, b, prefix: "elsewhere/")
    await_heartbeats([a, b], context.sup)

    assert {:ok, %{moves: [], left: %{no_target: 1}}} = call(a, DurableHandoff, :plan, [context.sup])
    assert {:ok, %{moved: 0, left: %{no_target: 1}, attempts: 0}} = drain(context, a, force: true)
    assert whereis(context, a, "k") == pid
  end

  @tag guarantee: "A drain never makes things worse than no drain"
  test "all nodes are full except for a few places: as many servers move, the others keep running",
       %{a: a, b: b} = context do
    start_handoff(context, a)
    start_handoff(context, b, max_children: %{total: 3})
    await_heartbeats([a, b], context.sup)
    keys = start_servers(context, a, 5)
    assert {:ok, %{moved: 3, left: %{capacity: 2}}} = drain(context, a)
    placement = placement(context)
    assert placement |> Map.values() |> Enum.frequencies() == %{a => 2, b => 3}
    assert Enum.sort(Map.keys(placement)) == Enum.sort(keys)
    assert reservations(context) == []
  end

  test "sticky placement allows no target, unless sticky: :any_level ignores the levels' delays",
       %{a: a, b: b} = context do
    start_cluster(context, sticky_placement: %{Counter => [HANDOFF_TEST_MACHINE: 60_000, any: 0]})
    pid = start_server(context, a, Counter, "k")
    assert {:ok, %{total: 1, left: %{sticky_locked: 1}, attempts: 0}} = drain(context, a)
    assert whereis(context, a, "k") == pid
    assert {:ok, %{moved: 1}} = drain(context, a, sticky: :any_level)
    await_on(context, b, "k", b)
  end

  test "wait_for_target_ms: a node that joins later gets all servers", %{a: a, b: b} = context do
    start_handoff(context, a)
    keys = start_servers(context, a, 4)
    draining = Task.async(fn -> drain(context, a, wait_for_target_ms: 60_000, timeout_ms: 120_000) end)
    wait_until(fn -> match?({:ok, %{progress: %{total: 4, waits_for: :target}}}, status(context, a)) end)

    start_handoff(context, b)
    assert {:ok, %{moved: 4}} = await_task(draining)
    assert_all_run_on(context, keys, [b])
  end

  test "a shutdown joins a drain/2 that waits longer for a target: it does not wait", %{a: a} = context do
    app = start_handoff(context, a, handoff_on_shutdown: [timeout_ms: 3_600_000])
    start_servers(context, a, 4)
    draining = Task.async(fn -> drain(context, a, wait_for_target_ms: 3_600_000) end)
    wait_until(fn -> match?({:ok, %{state: :draining, progress: %{total: 4}}}, status(context, a)) end)
    stopping = Task.async(fn -> stop_children(a, app) end)
    assert {:ok, %{ended: :cancelled, moved: 0, left: %{no_target: 4}}} = await_task(draining)
    assert :ok = await_task(stopping)
  end
end
