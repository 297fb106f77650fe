defmodule Handoff.StoredEarlyTest do
  @moduledoc "Servers store their state as soon as their node is told to stop, before the drain begins."

  use HandoffCase, nodes: 1

  # Each test has nodes of its own, because the mark is final.
  setup do
    [a, b] = start_nodes(2)
    for node <- [a, b], do: {:ok, _apps} = call(node, Application, :ensure_all_started, [:durable_handoff])
    {:ok, a: a, b: b, nodes: [a, b]}
  end

  # On a, a child stops before the Drainer, and waits until it is told to.
  defp start_with_slow_child(context) do
    start_handoff(context, context.a, after: [{HeldChild, {self(), 60_000}}])
    start_handoff(context, context.b)
    await_heartbeats(context.nodes, context.sup)
  end

  # Sends SIGTERM to the node. Returns the slow child, which has been told to stop.
  defp terminate(node) do
    {_output, 0} = System.cmd("kill", ["-TERM", call(node, System, :pid, [])])
    assert_receive {:stopping, ^node, slow}, 60_000
    slow
  end

  @tag guarantee: "Nothing is lost that a graceful shutdown would have kept"
  test "a child that stops before the Drainer is slow: all states are stored before the drain begins",
       %{a: a, b: b} = context do
    start_with_slow_child(context)
    keys = start_unsynced(context, a, 60)
    slow = terminate(a)
    wait_until(fn -> Enum.all?(keys, &(count_stored(context, &1) == 1)) end)
    # The mark is set at the same time as states are stored, and either may end first.
    wait_until(fn -> match?({:ok, %{marked: true}}, status(context, a)) end)
    assert {:ok, %{state: :idle}} = status(context, a)
    assert map_size(placement(context, [a])) == 60

    # When the drain begins, only later changes are stored again, and no server is stopped before. One server more has
    # changed than are asked at a time: while it waits for its turn, storing does not end.
    {changed, unchanged} = Enum.split(keys, 51)
    for key <- changed, do: 2 = ask(whereis(context, a, key), :add)
    hold(context, [:put])
    send(slow, :go_on)
    await_held(context, 50)
    writes = for key <- changed, do: {:put, storage_key(context, key)}
    assert SimulatedStore.paused(context.store) -- writes == []
    assert map_size(placement(context, [a])) == 60
    SimulatedStore.resume(context.store)
    await_all_on(context, keys, [b])
    # The other node ends now.
    left = %{context | nodes: [b]}
    assert_counts(left, changed, 2)
    assert_counts(left, unchanged, 1)
  end

  test "the store takes no heartbeat when the drain begins: no move waits for the mark, which SIGTERM has set",
       %{a: a, b: b} = context do
    start_with_slow_child(context)
    keys = start_servers(context, a, 3)
    listen_to_log(context, a)
    slow = terminate(a)
    # The heartbeat with the mark has been stored.
    wait_until(fn -> match?(%{"draining" => true}, elem(heartbeat_row(context, b, a), 6)) end)

    SimulatedStore.pause(context.store, {:put, storage_key(context, "__nodes/#{a}")})
    send(slow, :go_on)
    await_log(a, :states_stored)
    refute_received {:log, ^a, _level, :mark_failed, _fields}
    SimulatedStore.resume(context.store)
    await_all_on(context, keys, [b])
  end

  test "without handoff nothing is stored before the graceful shutdown", %{a: a} = context do
    start_handoff(context, a, handoff_on_shutdown: false, after: [{HeldChild, {self(), 60_000}}])
    [key] = start_unsynced(context, a, 1)
    assert :ok = call(a, DurableHandoff, :prepare_stop, [])
    :ok = call(a, :init, :stop, [])
    assert_receive {:stopping, _node, slow}, 60_000
    # The reply shows that the server has handled all earlier messages, including those of a Drainer.
    1 = ask(whereis(context, a, key), :get)
    assert count_stored(context, key) == 0
    send(slow, :go_on)
    wait_until(fn -> count_stored(context, key) == 1 end)
  end

  test "the servers' supervisor does not respond: their states are still stored", %{a: a} = context do
    start_cluster(context)
    keys = start_unsynced(context, a, 3)
    running = for key <- keys, do: whereis(context, a, key)
    assert Enum.sort(call(a, DurableHandoff.Host, :processes, [context.sup])) == Enum.sort(running)

    supervisor = :"#{context.sup}_dynamic"
    :ok = call(a, :sys, :suspend, [supervisor])
    assert Enum.sort(call(a, DurableHandoff.Host, :processes, [context.sup])) == Enum.sort(running)
    assert :ok = call(a, DurableHandoff, :prepare_stop, [])
    wait_until(fn -> Enum.all?(keys, &(count_stored(context, &1) == 1)) end)
    :ok = call(a, :sys, :resume, [supervisor])
  end

  test "the servers' supervisor has other children: only servers count, also when their module is named",
       %{a: a} = context do
    start_cluster(context)
    start_servers(context, a, 2)
    start_child(context, a, modules: [Agent])
    # As DurableServer names it from 0.1.6 on.
    server = start_child(context, a, modules: [DurableServer, Servers.Counter])
    assert server in call(a, DurableHandoff.Host, :processes, [context.sup])
    assert call(a, DurableHandoff.Host, :count, [context.sup]) == 3
  end

  test "a second prepare_stop/0 stores later changes", %{a: a} = context do
    start_cluster(context)
    [changed, other] = start_unsynced(context, a, 2)
    assert :ok = call(a, DurableHandoff, :prepare_stop, [])
    wait_until(fn -> Enum.map([changed, other], &count_stored(context, &1)) == [1, 1] end)
    2 = ask(whereis(context, a, changed), :add)
    assert :ok = call(a, DurableHandoff, :prepare_stop, [])
    wait_until(fn -> Enum.map([changed, other], &count_stored(context, &1)) == [2, 1] end)
    assert map_size(placement(context, [a])) == 2
  end

  test "a drain that begins while servers store their states knows how fast the store writes", %{a: a} = context do
    listen_to_log(context, a)
    # Fewer servers than the measurement of a store requires.
    start_storing(context)
    {:ok, :started} = drain(context, a, await: false)
    # The drain has joined, and waits for the ten servers that have not been asked.
    await_log(a, :storing_progress)
    SimulatedStore.resume(context.store)
    assert {:info, %{round_trip_ms: _known}} = await_log(a, :estimate)
    await_log(a, :drain_ended)
  end

  @tag guarantee: "Nothing is lost that a graceful shutdown would have kept"
  test "the drain begins soon after states are stored: no timer of that time ends its wait for later states",
       %{a: a} = context do
    # By the stopped clock the first write takes a minute, so slow servers are waited for longer than this test takes.
    FrozenClock.freeze(a)
    start_cluster(context, handoff_on_shutdown: [timeout_ms: 3_600_000, attempt_timeout_ms: 600_000])
    keys = start_unsynced(context, a, 51)
    hold(context, [:put])
    assert :ok = call(a, DurableHandoff, :prepare_stop, [])
    [storing] = drain_processes(a, [DurableHandoff.Drain.Storing])
    earlier = await_patience(context, storing)
    SimulatedStore.resume(context.store)
    wait_until(fn -> match?(%{phase: :done, running: none} when none == %{}, storing(a, storing)) end)

    for key <- keys, do: 2 = ask(whereis(context, a, key), :add)
    hold(context, [:put])
    {:ok, :started} = drain(context, a, await: false)
    assert await_patience(context, storing) != earlier
    call(a, :erlang, :send, [storing, {:timeout, earlier, :patience}])
    assert storing(a, storing).phase == :first
    SimulatedStore.resume(context.store)
    # A target that had not received a stop rests for a while.
    wait_until(fn -> FrozenClock.advance(a, 1_000) == :ok and drained?(context) end)
  end

  test "the drain begins in the pause after failed writes: the end of the pause removes no server from its queue",
       %{a: a} = context do
    start_cluster(context)
    start_unsynced(context, a, 60)
    SimulatedStore.configure(context.store, outage: :writes)
    # DurableServer may try to write the mark for longer than this waits.
    _marked = call(a, DurableHandoff, :prepare_stop, [])
    [storing] = drain_processes(a, [DurableHandoff.Drain.Storing])
    timer = wait_until(fn -> stop_pause(a, storing) end)

    hold(context, [:put])
    SimulatedStore.configure(context.store, outage: :none)
    {:ok, :started} = drain(context, a, await: false)
    await_held(context, 50)
    queue = storing(a, storing).queue
    call(a, :erlang, :send, [storing, {:timeout, timer, :again}])
    assert storing(a, storing).queue == queue
    SimulatedStore.resume(context.store)
    await_drained(context)
  end

  test "the Drainer ends while servers store their states: no further server is asked", %{a: a} = context do
    keys = start_storing(context)
    true = call(a, Process, :exit, [call(a, Process, :whereis, [:"#{context.sup}_handoff_drainer"]), :kill])
    wait_until(fn -> drain_processes(a, [DurableHandoff.Drain.Storing]) == [] end)
    SimulatedStore.resume(context.store)
    for key <- keys, do: ask(whereis(context, a, key), :get)
    assert Enum.count(keys, &(count_stored(context, &1) == 1)) == 50
  end

  # Tells a to stop with 60 servers that have changed, and waits until as many as are asked at a time are asked.
  defp start_storing(%{a: a} = context) do
    start_cluster(context)
    keys = start_unsynced(context, a, 60)
    hold(context, [:put])
    assert :ok = call(a, DurableHandoff, :prepare_stop, [])
    await_held(context, 50)
    keys
  end

  defp start_child(context, node, modules: modules) do
    child = %{id: make_ref(), start: {Agent, :start_link, [Map, :new, []]}, modules: modules, restart: :temporary}
    {:ok, pid} = call(node, DynamicSupervisor, :start_child, [:"#{context.sup}_dynamic", child])
    pid
  end

  defp storing(node, pid), do: call(node, :sys, :get_state, [pid])

  # Of 51 servers whose writes are held, one has written, and all others have been asked: the timer for slow ones.
  defp await_patience(%{a: a} = context, storing) do
    await_held(context, 50)
    FrozenClock.advance(a, 60_000)
    :ok = SimulatedStore.step(context.store)

    wait_until(fn ->
      with %{timer: timer} when is_reference(timer) <- storing(a, storing), do: timer, else: (_ -> nil)
    end)
  end

  # The timer of the pause, which does not end by itself then; nil if there is no pause now.
  defp stop_pause(node, storing) do
    with %{phase: :paused, timer: timer} <- storing(node, storing),
         left_ms when is_integer(left_ms) <- call(node, :erlang, :cancel_timer, [timer]),
         do: timer,
         else: (_no_pause -> nil)
  end

  defp await_drained(context), do: wait_until(fn -> drained?(context) end)

  defp drained?(context), do: match?({:ok, %{state: :drained}}, status(context, context.a))
end
