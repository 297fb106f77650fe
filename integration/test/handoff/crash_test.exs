defmodule Handoff.CrashTest do
  @moduledoc """
  Parts of the library crash or are killed: that is logged, the graceful shutdown continues, no reservation
  stays.
  """

  use HandoffCase, nodes: 2

  test "the Drainer crashes: servers keep running, it is restarted, and the shutdown drains", %{a: a, b: b} = context do
    [app, _app_b] = start_cluster(context)
    keys = start_servers(context, a, 5)
    pids = for key <- keys, do: whereis(context, a, key)
    old = drainer(context, a)
    call(a, Process, :exit, [old, :kill])
    wait_until(fn -> drainer(context, a) not in [nil, old] end)
    assert Enum.all?(pids, &call(a, Process, :alive?, [&1]))

    :ok = stop_children(a, app)
    await_all_on(context, keys, [b])
  end

  @tag guarantee: "A drain never makes things worse than no drain"
  test "the Drainer crashes repeatedly: servers keep running until the graceful shutdown stops them",
       %{a: a} = context do
    [app, _app_b] = start_cluster(context)
    [key] = start_servers(context, a, 1)
    pid = whereis(context, a, key)
    kill_drainer_for_good(context, a)
    assert call(a, Process, :alive?, [pid])
    assert drain(context, a) == {:error, :no_drainer}
    :ok = stop_children(a, app)
    assert stored(context, key).meta.status == :stopped_graceful
  end

  for module <- [DurableHandoff.Leftovers, DurableHandoff.Cordon, DurableHandoff.Rebalance.Watch] do
    @module module
    test "#{inspect(module)} crashes repeatedly: no drain begins, and a request still drains", %{a: a} = context do
      start_cluster(context, handoff_on_shutdown: [rebalance: true])
      start_servers(context, a, 3)
      drainer = drainer(context, a)
      kill_for_good(a, @module)
      assert {:ok, %{state: :idle, marked: false}} = status(context, a)
      assert running_on(context, a) == 3
      assert drainer(context, a) == drainer
      assert {:ok, %{moved: 3}} = drain(context, a)
    end
  end

  test "the Drainer is killed during a drain: moves in flight end, and no other begins",
       %{a: a, b: b} = context do
    start_cluster(context)
    keys = start_known(context, a, 10, b)
    hold_reads(context)
    test = self()
    spawn(fn -> send(test, {:drained, drain(context, a, max_concurrency: 2, concurrency: :fixed)}) end)
    await_held(context, 2)
    call(a, Process, :exit, [drainer(context, a), :kill])
    assert_receive {:drained, {:error, :no_drainer}}
    await_heard(context, b)
    SimulatedStore.resume(context.store)

    wait_until(fn -> drain_processes(a) == [] end)
    wait_until(fn -> map_size(placement(context)) == 10 end)
    assert placement(context) |> Map.values() |> Enum.frequencies() == %{a => 8, b => 2}
    assert Enum.sort(Map.keys(placement(context))) == Enum.sort(keys)
    assert reservations(context) == []
  end

  test "the drain's process is killed: the caller gets an error, it is logged, and moves in flight end",
       %{a: a, b: b} = context do
    [app, _app_b] = start_cluster(context)
    keys = start_known(context, a, 10, b)
    listen_to_log(context, a)
    draining = start_held(context, 2, fn -> drain(context, a, max_concurrency: 2, concurrency: :fixed) end)
    kill_drain(a)
    assert {:error, {:drain_failed, :killed}} = await_task(draining)
    {:error, _line} = await_log(a, :drain_failed, %{reason: {:drain_failed, :killed}, shutdown: false})
    assert {:ok, %{state: :failed}} = status(context, a)

    await_heard(context, b)
    SimulatedStore.resume(context.store)
    wait_until(fn -> drain_processes(a) == [] end)
    assert reservations(context) == []

    # A shutdown still drains the remaining servers.
    :ok = stop_children(a, app)
    await_all_on(context, keys, [b])
  end

  test "the drain's process hangs: its caller gets an error after its time, and the cordon can be taken back",
       %{b: b} = context do
    # In the stopped time the drain does not end before it is suspended.
    {a, context} = with_own_clock(context, [b])
    start_cluster(context)
    start_servers(context, a, 2)
    FrozenClock.freeze(a)
    draining = start_held(context, 2, fn -> drain(context, a, timeout_ms: 3_000) end)
    [drain] = drain_processes(a, [DurableHandoff.Drain])
    {relay, true} = Relay.start(a, {:erlang, :suspend_process, [drain]})
    assert {:error, :overdue} = await_task(draining)
    assert {:ok, %{state: :failed, cordoned: true}} = status(context, a)
    assert :ok = call(a, DurableHandoff, :uncordon, [context.sup])
    Process.exit(relay, :kill)
    SimulatedStore.resume(context.store)
    wait_until(fn -> drain_processes(a) == [] end)
    assert reservations(context) == []
  end

  test "the drain's process is killed during a shutdown: the graceful shutdown goes on", %{a: a, b: b} = context do
    [app, _app_b] = start_cluster(context, handoff_on_shutdown: [max_concurrency: 1])
    keys = start_servers(context, a, 5)
    listen_to_log(context, a)
    listen_to_telemetry(a)
    stopping = start_held(context, 1, fn -> stop_children(a, app) end)
    kill_drain(a)
    {:error, _line} = await_log(a, :drain_failed, %{reason: {:drain_failed, :killed}, shutdown: true})
    assert_receive {:event, [:durable_handoff, :fallback], _count, %{reason: reason}}
    assert reason == {:drain_failed, :killed}
    SimulatedStore.resume(context.store)
    :ok = await_task(stopping)

    wait_until(fn -> drain_processes(a) == [] end)
    assert reservations(context) == []

    await_startable(context, b, keys)
  end

  @tag guarantee: "A drain never makes things worse than no drain"
  test "the drain's process is killed while a server is displaced: its reservation is cleared",
       %{a: a} = context do
    start_cluster(context)
    start_server(context, a, Troublesome, "k", %{count: 0})
    draining = start_held(context, 1, fn -> drain(context, a) end, "k")
    # The attempt fails at the target's claim, and gets no further message from the drain.
    SimulatedStore.fail_next(context.store, :put, storage_key(context, "k"), :slow_down)
    [drain] = drain_processes(a, [DurableHandoff.Drain])
    {_relay, true} = Relay.start(a, {:erlang, :suspend_process, [drain]})
    SimulatedStore.resume(context.store)
    [attempt] = drain_processes(a, [DurableHandoff.Drain.Attempt])
    wait_until(fn -> reported?(a, drain, attempt) end)
    assert reservations(context) == ["k"]
    call(a, Process, :exit, [drain, :kill])
    assert {:error, {:drain_failed, :killed}} = await_task(draining)
    wait_until(fn -> drain_processes(a) == [] end)
    assert reservations(context) == []
  end

  test "an attempt's process is killed: the drain looks the server up and goes on", %{a: a, b: b} = context do
    start_cluster(context)
    [key] = start_servers(context, a, 1)
    listen_to_log(context, a)
    draining = start_held(context, 1, fn -> drain(context, a) end)
    [attempt] = drain_processes(a, [DurableHandoff.Drain.Attempt])
    call(a, Process, :exit, [attempt, :kill])
    assert {:error, %{key: ^key, reason: :killed}} = await_log(a, :attempt_died)
    await_held(context, 2)
    SimulatedStore.resume(context.store)

    assert {:ok, %{total: 1, moved: 1}} = await_task(draining)
    assert placement(context) == %{key => b}
    assert reservations(context) == []
  end

  test "the process that clears a reservation is killed: another one clears it",
       %{nodes: [a | others]} = context do
    start_cluster(context)
    for key <- ["k1", "k2"], do: start_server(context, a, Troublesome, key, %{count: 0})
    for node <- others, key <- ["k1", "k2"], do: Troublesome.arm(node, key, :init, :raise)
    once = [max_attempts: 1, max_concurrency: 1, concurrency: :fixed, max_consecutive_failures: 100]

    # A server whose start fails is written twice: reserved when it stops, and again when its reservation is
    # cleared.
    SimulatedStore.pause(context.store, {:put, storage_key(context, "k2")})
    draining = Task.async(fn -> drain(context, a, once) end)
    wait_until(fn -> SimulatedStore.paused(context.store) != [] end)
    step_put(context)
    assert reservations(context) == ["k2"]
    [holder] = drain_processes(a, [DurableHandoff.Drain.Attempt])
    call(a, Process, :exit, [holder, :kill])
    await_held(context, 2)
    SimulatedStore.resume(context.store)

    assert {:ok, %{moved: 0, left: %{attempts_exhausted: 2}, ended: :done}} = await_task(draining)
    assert reservations(context) == []
  end

  test "the store fails while a reservation is cleared: the drain ends, and it is cleared when the store is back",
       %{nodes: [a | _others]} = context do
    start_cluster(context)
    start_server(context, a, Troublesome, "k", %{count: 0})
    listen_to_log(context, a)
    draining = start_held(context, 1, fn -> drain(context, a) end, "k")
    SimulatedStore.configure(context.store, outage: :all)
    SimulatedStore.resume(context.store)
    :ok = call(a, DurableHandoff, :cancel, [context.sup])

    assert {:ok, %{moved: 0, left: %{cancelled: 1}}} = await_task(draining)
    assert {:warning, %{key: "k", reason: :unavailable}} = await_log(a, :reservation_left)
    assert reservations(context) == ["k"]
    SimulatedStore.configure(context.store, outage: :none)
    wait_until(fn -> drain_processes(a) == [] end)
    assert reservations(context) == []
  end

  test "a reservation that cannot be cleared is tried until it has expired, however long DurableServer reserves",
       %{nodes: [a | _others]} = context do
    for ms <- [1, 90_000] do
      context = another_supervisor(context)
      start_cluster(context, restart_start_timeout_ms: ms)
      start_server(context, a, Troublesome, "k", %{count: 0})
      draining = start_held(context, 1, fn -> drain(context, a) end, "k")
      %{restart_attempt_time: at_ms, restart_attempt_ttl: until_ms} = stored(context, "k").meta
      SimulatedStore.resume(context.store)
      assert {:ok, %{moved: 1}} = await_task(draining)

      assert call(a, DurableHandoff.Host, :reservation_ms, [context.sup]) == until_ms - at_ms
      assert Enum.sum(DurableHandoff.Drain.Attempt.later_pauses_ms(until_ms - at_ms)) > until_ms - at_ms
    end
  end

  defp step_put(context) do
    [held] = SimulatedStore.paused(context.store)
    SimulatedStore.step(context.store)
    wait_until(fn -> SimulatedStore.paused(context.store) not in [[], [held, held]] end)
  end

  test "the host crashes in the middle of a drain: the drain ends", %{a: a} = context do
    start_cluster(context)
    start_servers(context, a, 3)
    draining = start_held(context, 3, fn -> drain(context, a) end)
    call(a, Process, :exit, [call(a, Process, :whereis, [:"#{context.sup}_lifecycle_manager"]), :kill])
    SimulatedStore.resume(context.store)
    assert {:ok, %{total: 3}} = await_task(draining)
    wait_until(fn -> drain_processes(a) == [] end)
    assert reservations(context) == []
  end

  defp drainer(context, node), do: call(node, Process, :whereis, [:"#{context.sup}_handoff_drainer"])

  # Until its supervisor has given up.
  defp kill_for_good(node, module) do
    [pid] = drain_processes(node, [module])
    {:dictionary, dictionary} = call(node, Process, :info, [pid, :dictionary])
    [parent | _] = dictionary[:"$ancestors"]
    call(node, Process, :exit, [pid, :kill])

    wait_until(fn -> drain_processes(node, [module]) not in [[pid], []] or not running?(node, parent) end)
    if running?(node, parent), do: kill_for_good(node, module)
  end

  defp running?(node, parent) when is_atom(parent), do: call(node, Process, :whereis, [parent]) != nil
  defp running?(node, parent), do: call(node, Process, :alive?, [parent])

  # There is no Drainer: it is being restarted, or will not be started again.
  defp kill_drainer_for_good(context, node) do
    pid = wait_until(fn -> if inner_supervisor_gone?(context, node), do: :gone, else: drainer(context, node) end)

    if pid != :gone do
      call(node, Process, :exit, [pid, :kill])
      wait_until(fn -> drainer(context, node) != pid end)
      kill_drainer_for_good(context, node)
    end
  end

  # The Drainer's own supervisor has given up, so no Drainer will start.
  defp inner_supervisor_gone?(context, node) do
    host = call(node, Process, :whereis, [context.sup])
    {:dictionary, dictionary} = call(node, Process, :info, [host, :dictionary])
    [parent | _] = dictionary[:"$ancestors"]
    not Enum.any?(call(node, Supervisor, :which_children, [parent]), &match?({DurableHandoff.Drainer, _, _, _}, &1))
  end

  defp kill_drain(node) do
    [drain] = drain_processes(node, [DurableHandoff.Drain])
    call(node, Process, :exit, [drain, :kill])
  end

  # The attempt has ended: its result is in the mailbox of the drain, which is suspended.
  defp reported?(node, drain, attempt) do
    {:messages, messages} = call(node, Process, :info, [drain, :messages])
    Enum.any?(messages, &match?({:attempted, ^attempt, _result}, &1))
  end
end
