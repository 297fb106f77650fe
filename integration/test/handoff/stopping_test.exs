defmodule Handoff.StoppingTest do
  @moduledoc "A stopping node is marked before its Drainer stops, and gets no servers from other nodes."

  use HandoffCase, nodes: 1

  # Each test has its own nodes, because the mark cannot be undone.
  setup do
    [a, b, c] = start_nodes(3)
    context = %{a: a, b: b, c: c, nodes: [a, b, c]}
    for node <- context.nodes, do: {:ok, _apps} = call(node, Application, :ensure_all_started, [:durable_handoff])
    {:ok, context}
  end

  test "init:stop on two nodes, one with a slow child that stops first: no server moves to that node",
       %{a: a, b: b, c: c} = context do
    start_handoff(context, a)
    start_with_slow_child(context, b)
    start_handoff(context, c)
    await_heartbeats(context.nodes, context.sup)
    keys = start_servers(context, a, 20)

    # The Drainer has not been told to stop yet, because the child after it is stopped first.
    :ok = call(b, :init, :stop, [])
    assert_receive {:stopping, ^b, slow}, 60_000
    stop(a)

    await_all_on(context, keys, [c])
    assert running_on(context, b) == 0
    send(slow, :go_on)
  end

  test "SIGTERM marks the node before a slow child, which stops before the Drainer, has stopped",
       %{a: a, b: b, c: c} = context do
    start_with_slow_child(context, b)
    for node <- [a, c], do: start_handoff(context, node)
    await_heartbeats(context.nodes, context.sup)
    {_output, 0} = System.cmd("kill", ["-TERM", call(b, System, :pid, [])])
    assert_receive {:stopping, ^b, slow}, 60_000

    # DurableServer itself refuses to start servers there.
    await_marked(context, b, a)
    assert {:ok, %{state: :idle, marked: true}} = status(context, b)
    start_servers(context, a, 6)
    assert {:ok, %{moved: 6, targets: targets}} = drain(context, a)
    assert targets == %{Atom.to_string(c) => 6}
    send(slow, :go_on)
  end

  test "the application is restarted in the middle of a drain: the drain goes on, and the node can still be marked",
       %{a: a, b: b, c: c} = context do
    start_cluster(context)
    keys = start_known(context, a, 5, b)
    hold_reads(context)
    draining = Task.async(fn -> drain(context, a) end)
    wait_until(fn -> SimulatedStore.paused(context.store) != [] end)
    :ok = call(a, Application, :stop, [:durable_handoff])
    SimulatedStore.resume(context.store)
    assert {:ok, %{moved: 5}} = await_task(draining)
    assert_all_run_on(context, keys, [b, c])

    :ok = call(a, Application, :start, [:durable_handoff])
    :ok = call(a, DurableHandoff, :uncordon, [context.sup])
    assert call(a, DurableHandoff, :prepare_stop, []) == :ok
    assert {:ok, %{marked: true, cordoned: false}} = status(context, a)
  end

  test "a stopping node's heartbeat write times out: a warning, and its drain goes on",
       %{a: a, b: b, c: c} = context do
    start_cluster(context)
    keys = start_servers(context, a, 5)
    listen_to_log(context, a)
    SimulatedStore.pause(context.store, {:put, storage_key(context, "__nodes/#{a}")})
    assert {:error, {:not_marked, failed}} = call(a, DurableHandoff, :prepare_stop, [])
    assert Map.keys(failed) == [context.sup]
    {:warning, _line} = await_log(a, :mark_failed)
    assert {:ok, %{moved: 5, ended: :done}} = drain(context, a, timeout_ms: 60_000)
    SimulatedStore.resume(context.store)
    assert_all_run_on(context, keys, [b, c])
  end

  test "a target stops after the plan was made: servers that have not started there go elsewhere",
       %{a: a, b: b, c: c} = context do
    start_cluster(context)
    keys = start_servers(context, a, 12)
    draining = start_held(context, 4, fn -> drain(context, a, max_concurrency: 4, concurrency: :fixed) end)
    assert :ok = call(b, DurableHandoff, :prepare_stop, [])
    await_marked(context, b, a)
    before = running_on(context, b)
    SimulatedStore.resume(context.store)

    assert {:ok, %{moved: 12}} = await_task(draining)
    assert running_on(context, b) == before
    await_all_on(context, keys, [b, c])
  end

  test "prepare_stop/0 marks all supervisors, stops no server, and can be called again", %{a: a, b: b} = context do
    other = another_supervisor(context)
    for each <- [context, other], do: start_cluster(each, name: each.sup)
    pids = for each <- [context, other], do: start_server(each, a, Counter, "k")
    assert :ok = call(a, DurableHandoff, :prepare_stop, [])
    assert :ok = call(a, DurableHandoff, :prepare_stop, [])

    for {each, pid} <- Enum.zip([context, other], pids) do
      assert {:ok, %{marked: true, state: :idle}} = status(each, a)
      await_marked(each, a, b)
      assert whereis(each, a, "k") == pid
    end
  end

  test "the supervisor restarts after prepare_stop/0: no server moves there, and the status says so",
       %{a: a, b: b} = context do
    [_a, app, _c] = start_cluster(context)
    assert :ok = call(b, DurableHandoff, :prepare_stop, [])
    :ok = stop_children(b, app)
    start_handoff(context, b)
    wait_until(fn -> b in eligible(context, a) end)
    assert {:ok, %{marked: true, cordoned: false}} = status(context, b)
    start_servers(context, a, 6)
    assert {:ok, %{moved: 6, targets: targets}} = drain(context, a)
    refute is_map_key(targets, Atom.to_string(b))
  end

  test "all nodes are told to stop: no server moves, and no node waits", %{a: a} = context do
    start_cluster(context)
    pid = start_server(context, a, Counter, "k")
    for node <- context.nodes, do: assert(:ok = call(node, DurableHandoff, :prepare_stop, []))
    # In the stopped time a wait for a target would not end.
    FrozenClock.freeze(a)
    assert {:ok, %{moved: 0, left: left, attempts: 0, ended: :done}} = drain(context, a, force: true)
    assert left == %{no_target: 1}
    assert whereis(context, a, "k") == pid
  end

  test "this library's signal handler runs before OTP's, other handlers stay, and it can be removed", %{a: a} do
    assert [ours | others] = call(a, :gen_event, :which_handlers, [:erl_signal_server])
    assert {DurableHandoff.Stopping.Signal, stopping} = ours
    assert :erl_signal_handler in others

    before = call(a, Process, :whereis, [stopping])
    call(a, :gen_event, :delete_handler, [:erl_signal_server, ours, :removed])
    # After these two calls it has handled the removal.
    for request <- [:suspend, :resume], do: :ok = call(a, :sys, request, [before])
    assert call(a, Process, :whereis, [stopping]) == before
  end

  defp start_with_slow_child(context, node), do: start_handoff(context, node, after: [{HeldChild, {self(), 60_000}}])

  defp await_marked(context, node, asker) do
    wait_until(fn -> node not in eligible(context, asker) end)
  end
end
