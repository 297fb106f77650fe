defmodule Handoff.CordonTest do
  @moduledoc "A cordoned node takes no servers, all nodes know of the cordon at once, and it can be undone."

  use HandoffCase, nodes: 3

  alias DurableHandoff.Host.Mark

  # No heartbeat of DurableServer itself is sent during a test.
  @silent [heartbeat_interval_ms: 600_000, heartbeat_staleness_threshold_ms: 1_800_000]

  test "other nodes learn of a cordon and of its end at once, without a heartbeat", %{a: a, b: b, c: c} = context do
    start_cluster(context, @silent)
    pid = start_server(context, b, Counter, "k")
    assert :ok = call(b, DurableHandoff, :cordon, [context.sup])
    assert {:ok, %{marked: true, cordoned: true, state: :idle}} = status(context, b)
    wait_until(fn -> eligible(context, a) == [c] end)
    assert whereis(context, b, "k") == pid

    # Cordons again and uncordons at once.
    assert :ok = call(b, DurableHandoff, :cordon, [context.sup])
    assert :ok = call(b, DurableHandoff, :uncordon, [context.sup])
    assert {:ok, %{marked: false, cordoned: false}} = status(context, b)
    wait_until(fn -> Enum.sort(eligible(context, a)) == Enum.sort([b, c]) end)
    assert :ok = call(b, DurableHandoff, :uncordon, [context.sup])

    assert :ok = call(b, DurableHandoff, :cordon, [context.sup])
    wait_until(fn -> eligible(context, a) == [c] end)
  end

  test "later heartbeats carry the cordon, and the entry that announced it is removed", %{a: a, b: b, c: c} = context do
    start_cluster(context, heartbeat_interval_ms: 50)
    assert :ok = call(b, DurableHandoff, :cordon, [context.sup])

    wait_until(fn ->
      match?([{_manager, %{"draining" => true, "durable_handoff" => %{"servers" => 0}}}], own_heartbeats(context, b))
    end)

    wait_until(fn -> eligible(context, a) == [c] end)

    assert :ok = call(b, DurableHandoff, :uncordon, [context.sup])
    wait_until(fn -> match?([{_manager, meta}] when not is_map_key(meta, "draining"), own_heartbeats(context, b)) end)
    wait_until(fn -> Enum.sort(eligible(context, a)) == Enum.sort([b, c]) end)
  end

  test "a heartbeat that was sent before the cordon does not undo it", %{a: a, b: b, c: c} = context do
    start_cluster(context, heartbeat_interval_ms: 50)
    # A heartbeat from before the cordon is being written, and arrives after the cordon. A later one would repair that.
    SimulatedStore.pause(context.store, {:put, storage_key(context, "__nodes/#{b}")})
    await_held(context, 1)
    assert :ok = call(b, DurableHandoff, :cordon, [context.sup])
    wait_until(fn -> eligible(context, a) == [c] end)
    manager = call(b, DurableHandoff.Host, :whereis, [context.sup])
    before = heartbeats(context, a, b)[manager].timestamp
    :ok = SimulatedStore.step(context.store)
    wait_until(fn -> heartbeats(context, a, b)[manager].timestamp > before end)
    wait_until(fn -> newest_heartbeat(context, a, b).heartbeat_meta["draining"] end)
    wait_until(fn -> eligible(context, a) == [c] end)

    SimulatedStore.resume(context.store)
    wait_until(fn -> match?([{^manager, %{"draining" => true}}], own_heartbeats(context, b)) end)
    wait_until(fn -> eligible(context, a) == [c] end)
  end

  test "the entry that announced a cordon is removed, although a heartbeat from before the cordon is newer",
       %{b: b} = context do
    start_cluster(context, heartbeat_interval_ms: 50)
    SimulatedStore.pause(context.store, {:put, storage_key(context, "__nodes/#{b}")})
    await_held(context, 1)
    assert :ok = call(b, DurableHandoff, :cordon, [context.sup])
    # It announces nothing again by itself.
    call(b, :sys, :replace_state, [:"#{context.sup}_handoff_cordon", &HandoffCase.cancel_timer/1])
    manager = call(b, DurableHandoff.Host, :whereis, [context.sup])
    before = heartbeats(context, b, b)[manager].timestamp
    :ok = SimulatedStore.step(context.store)
    wait_until(fn -> heartbeats(context, b, b)[manager].timestamp > before end)
    assert :ok = call(b, DurableHandoff, :uncordon, [context.sup])
    assert [{^manager, meta}] = own_heartbeats(context, b)
    refute is_map_key(meta, "draining")
  end

  test "a start on the cordoned node is placed elsewhere, and on it again after uncordon/1",
       %{a: a, b: b, c: c} = context do
    start_cluster(context)
    assert :ok = call(b, DurableHandoff, :cordon, [context.sup])
    assert {:error, {:capacity_limit, :node_shutting_down}} = start_here(context, b, "k")
    assert {:ok, {pid, _meta}} = ensure_started(context, b, "k")
    assert node(pid) in [a, c]
    assert :ok = call(b, DurableHandoff, :uncordon, [context.sup])
    assert {:ok, {pid, _meta}} = start_here(context, b, "k2")
    assert node(pid) == b
  end

  test "drains of other nodes, also running ones, do not choose the cordoned node", %{a: a, b: b, c: c} = context do
    start_cluster(context, @silent)
    keys = start_servers(context, a, 12)
    draining = start_held(context, 4, fn -> drain(context, a, max_concurrency: 4, concurrency: :fixed) end)
    assert :ok = call(b, DurableHandoff, :cordon, [context.sup])
    before = running_on(context, b)
    SimulatedStore.resume(context.store)
    assert {:ok, %{moved: 12}} = await_task(draining)
    assert running_on(context, b) == before
    await_all_on(context, keys, [b, c])

    # No node takes servers any more: one was drained, which cordons it, and the other was cordoned.
    wait_until(fn -> eligible(context, c) == [] end)
    assert {:error, :no_peers} = drain(context, c)
    assert :ok = call(a, DurableHandoff, :uncordon, [context.sup])
    wait_until(fn -> eligible(context, c) == [a] end)
    assert {:ok, %{moved: moved, left: %{}}} = drain(context, c)
    assert moved == 12 - before
    assert running_on(context, a) == moved
  end

  test "drain/2 cordons the node, and after uncordon/1 it takes servers again", %{a: a, b: b, c: c} = context do
    start_cluster(context, @silent)
    keys = start_servers(context, a, 4)
    assert {:ok, %{moved: 4}} = drain(context, a)
    assert {:ok, %{state: :drained, marked: true, cordoned: true}} = status(context, a)
    assert {:error, {:capacity_limit, :node_shutting_down}} = start_here(context, a, "new")
    assert :ok = call(a, DurableHandoff, :uncordon, [context.sup])
    assert {:ok, %{state: :drained, marked: false, cordoned: false}} = status(context, a)
    for node <- [b, c], do: wait_until(fn -> a in eligible(context, node) end)
    assert {:ok, _report} = drain(context, b)
    assert {:ok, _report} = drain(context, c)
    await_all_on(context, keys, [a])
  end

  test "uncordon during a drain is refused until the drain is cancelled", %{a: a} = context do
    start_cluster(context)
    start_servers(context, a, 3)
    draining = start_held(context, 1, fn -> drain(context, a, max_concurrency: 1) end)
    assert {:error, :draining} = call(a, DurableHandoff, :uncordon, [context.sup])
    assert :ok = call(a, DurableHandoff, :cancel, [context.sup])
    SimulatedStore.resume(context.store)
    assert {:ok, %{ended: :cancelled}} = await_task(draining)
    assert :ok = call(a, DurableHandoff, :uncordon, [context.sup])
    assert {:ok, _server} = start_here(context, a, "new")
  end

  test "after a store failure during drain/2 the cordon can still be taken back", %{a: a} = context do
    start_cluster(context)
    start_unsynced(context, a, 3)
    SimulatedStore.configure(context.store, outage: :writes)
    {:ok, :started} = drain(context, a, await: false)
    wait_until(fn -> SimulatedStore.stats(context.store).error >= 3 end)
    :ok = call(a, DurableHandoff, :cancel, [context.sup])
    wait_until(fn -> match?({:ok, %{state: :cancelled, report: %{moved: 0}}}, status(context, a)) end)
    SimulatedStore.configure(context.store, outage: :none)
    assert {:ok, %{cordoned: true}} = status(context, a)
    assert :ok = call(a, DurableHandoff, :uncordon, [context.sup])
    wait_until(fn -> match?({:ok, _server}, start_here(context, a, "new")) end)
  end

  test "when DurableServer's supervisor restarts, its cordon ends, and the node accepts leftovers again",
       %{b: b} = context do
    start_cluster(context)
    listen_to_telemetry(b)
    assert :ok = call(b, DurableHandoff, :cordon, [context.sup])
    assert_receive {:event, [:durable_handoff, :mark], _count, %{mark: :cordoned}}
    assert {:error, :draining} = offer_ready(context, b)
    crashed = call(b, Process, :whereis, [context.sup])
    call(b, Process, :exit, [crashed, :kill])
    assert_receive {:event, [:durable_handoff, :mark], _count, %{mark: :none}}, 60_000
    wait_until(fn -> call(b, Process, :whereis, [context.sup]) not in [nil, crashed] end)
    wait_until(fn -> match?({:ok, %{cordoned: false, marked: false}}, status(context, b)) end)
    # If DurableServer's supervisor cannot start at once, everything above it restarts, too.
    wait_until(fn -> ready?(context, b) end)
  end

  test "when DurableServer's supervisor restarts, and everything of this library with it, the end of its cordon is sent",
       %{b: b} = context do
    {:ok, _apps} = call(b, Application, :ensure_all_started, [:durable_handoff])
    start_cluster(context)
    listen_to_telemetry(b)
    assert :ok = call(b, DurableHandoff, :cordon, [context.sup])
    assert_receive {:event, [:durable_handoff, :mark], _count, %{mark: :cordoned}}
    # It does not notice the end of that supervisor before its own.
    :ok = call(b, :sys, :suspend, [:"#{context.sup}_handoff_cordon"])
    call(b, HandoffCase, :kill_applications, [])
    wait_until(fn -> call(b, Process, :whereis, [:"#{context.sup}_handoff_cordon"]) == nil end)
    wait_until(fn -> call(b, Process, :whereis, [context.sup]) == nil end)
    refute_received {:event, [:durable_handoff, :mark], _count, _mark}

    start_handoff(context, b)
    assert_receive {:event, [:durable_handoff, :mark], _count, %{mark: :none}}, 60_000
    assert {:ok, %{cordoned: false, marked: false}} = status(context, b)
    # Only once.
    call(b, HandoffCase, :kill_applications, [])
    wait_until(fn -> call(b, Process, :whereis, [context.sup]) == nil end)
    start_handoff(context, b)
    refute_received {:event, [:durable_handoff, :mark], _count, _mark}
  end

  test "a process that dies after it has taken a cordon back: the node accepts leftovers again", %{b: b} = context do
    start_cluster(context)
    assert :ok = call(b, DurableHandoff, :cordon, [context.sup])
    assert {:error, :draining} = offer_ready(context, b)
    # What that process had done.
    assert {:ok, :none} = call(b, Mark, :uncordon, [context.sup])
    assert :ok = call(b, DurableHandoff, :uncordon, [context.sup])
    assert {:ready, _receiver} = offer_ready(context, b)
  end

  test "a process that dies between two writes of a change leaves no final mark", %{a: a} = context do
    start_host(a, context.opts)
    %{uncordon: [_not_begun | stopped] = uncordon, cordon: cordon} = call(a, Crashes, :of_marks, [context.sup])
    # At least the two rows.
    assert length(stopped) >= 2 and length(cordon) >= 3
    assert List.last(stopped).left == :none and List.last(cordon).left == :cordoned

    for crash <- uncordon ++ cordon do
      assert crash.left in [:none, :cordoned]
      assert crash == %{crash | repaired: {:ok, crash.left}, cordoned: {:ok, :cordoned}, uncordoned: {:ok, :none}}
    end
  end

  test "a final mark stays, also if an uncordon/1 that began before it dies when it has deleted its row",
       %{a: a} = context do
    start_host(a, context.opts)
    %{ets_table: table} = call(a, Host, :__get_config__, [context.sup])
    # What is left of the row that DurableServer writes and the one that `Mark.stop/2` writes before.
    call(a, :ets, :insert, [table, {Mark, :final}])

    for change <- [:repair, :uncordon, :cordon, :repair],
        do: assert({:ok, :final} = call(a, Mark, change, [context.sup]))

    assert {:error, {:capacity_limit, :node_shutting_down}} = start_here(context, a, "new")
  end

  test "the next Cordon process ends a change that died in the middle", %{a: a} = context do
    start_handoff(context, a)
    %{ets_table: table} = call(a, Host, :__get_config__, [context.sup])
    call(a, :ets, :insert, [table, {Mark, :cordoned}])
    call(a, Process, :exit, [call(a, Process, :whereis, [:"#{context.sup}_handoff_cordon"]), :kill])
    wait_until(fn -> not call(a, :ets, :member, [table, Mark]) end)
    assert :ok = call(a, DurableHandoff, :cordon, [context.sup])
    assert {:ok, %{cordoned: true}} = status(context, a)
  end

  describe "a mark that cannot be taken back" do
    setup do
      node = start_node()
      {:ok, _apps} = call(node, Application, :ensure_all_started, [:durable_handoff])
      {:ok, doomed: node}
    end

    test "after prepare_stop/0 uncordon/1 returns that the node stops, also if it was cordoned before",
         %{a: a, doomed: doomed} = context do
      context = %{context | nodes: [a, doomed]}
      start_cluster(context)
      assert :ok = call(doomed, DurableHandoff, :cordon, [context.sup])
      assert :ok = call(doomed, DurableHandoff, :prepare_stop, [])
      assert {:error, :stopping} = call(doomed, DurableHandoff, :uncordon, [context.sup])
      assert :ok = call(doomed, DurableHandoff, :cordon, [context.sup])
      assert {:error, :stopping} = call(doomed, DurableHandoff, :uncordon, [context.sup])
      assert {:ok, %{marked: true, cordoned: false}} = status(context, doomed)
      assert {:error, {:capacity_limit, :node_shutting_down}} = start_here(context, doomed, "k")
    end

    test "a shutdown of a cordoned node drains like any other", %{a: a, doomed: doomed} = context do
      context = %{context | nodes: [a, doomed]}
      [_app, app] = start_cluster(context)
      keys = start_servers(context, doomed, 5)
      assert :ok = call(doomed, DurableHandoff, :cordon, [context.sup])
      :ok = stop_children(doomed, app)
      await_all_on(context, keys, [a])
    end
  end

  defp start_here(context, node, key) do
    child = {Counter, key: key, initial_state: %{}}
    call(node, Host, :start_child, [context.sup, child, [local_only: true]])
  end

  # The answer to a node that has leftovers.
  defp offer_ready(context, node),
    do: call(node, GenServer, :call, [DurableHandoff.Leftovers.Message.name(context.sup), :ready?])

  defp ready?(context, node) do
    match?({:ready, _receiver}, offer_ready(context, node))
  catch
    # The receiver does not run.
    :exit, _reason -> false
  end

  defp own_heartbeats(context, node),
    do: for({pid, beat} <- heartbeats(context, node, node), do: {pid, beat.heartbeat_meta})

  # The heartbeats of the node `of` that `node` knows, by the process that sent them.
  defp heartbeats(context, node, of) do
    name = Atom.to_string(of)

    for {pid, %{node: ^name} = beat} <- call(node, Group, :members, [context.sup, "__heartbeat"]),
        into: %{},
        do: {pid, beat}
  end

  defp newest_heartbeat(context, node, of),
    do: context |> heartbeats(node, of) |> Map.values() |> Enum.max_by(& &1.timestamp)
end
