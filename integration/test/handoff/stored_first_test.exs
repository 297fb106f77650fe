defmodule Handoff.StoredFirstTest do
  @moduledoc """
  Unsaved states when a drain begins. None is lost when the node is killed, when the store fails for a short
  time, or when another state cannot be stored.
  """

  use HandoffCase, nodes: 3

  alias DurableHandoff.Host.Sync

  @tag guarantee: "Nothing is lost that a graceful shutdown would have kept"
  test "the node is killed when moves have just begun: every state is in the store", %{a: a} = context do
    start_cluster(context)
    keys = start_unsynced(context, a, 30)
    # Two servers are stopped and wait for their reads; the others have not been tried.
    draining = start_held(context, 2, fn -> drain(context, a, max_concurrency: 2) end)
    assert for(key <- keys, count_stored(context, key) != 1, do: key) == []

    SimulatedStore.resume(context.store)
    assert %{moved: 30, stored: %{stored: 30, unchanged: 0, failed: 0}} = await_drain(draining)
  end

  test "servers whose state is stored already are asked, and write nothing", %{a: a} = context do
    start_cluster(context)
    start_servers(context, a, 10)
    hold(context, [:put])
    draining = start_drain(context, a, max_concurrency: 1)

    # The first write is that of the first server's stop.
    wait_until(fn -> SimulatedStore.paused(context.store) != [] end)
    assert [{:put, _key}] = SimulatedStore.paused(context.store)
    SimulatedStore.resume(context.store)
    assert %{moved: 10, stored: %{stored: 0, unchanged: 10, failed: 0}} = await_drain(draining)
  end

  @tag guarantee: "A drain never makes things worse than no drain"
  test "the store takes no writes when a drain begins, and no state has changed: no server is stopped",
       %{b: b, c: c} = context do
    {a, context} = with_own_clock(context, [b, c])
    FrozenClock.freeze(a)
    [app | _apps] = start_cluster(context, handoff_on_shutdown: [timeout_ms: 600_000])
    start_servers(context, a, 4)
    listen_to_telemetry(a)
    SimulatedStore.configure(context.store, outage: :writes)
    stopping = Task.async(fn -> stop_children(a, app) end)
    assert_receive {:event, [:durable_handoff, :attempt, :stop], _duration, %{outcome: first}}, 60_000
    FrozenClock.advance(a, 600_000)
    assert :ok = await_task(stopping)

    assert_receive {:event, [:durable_handoff, :drain, :stop], _measurements, %{report: report}}, 60_000
    assert %{moved: 0, total: 4} = report
    assert Enum.uniq([first | outcomes()]) == [{:untouched, :store}]
  end

  test "the last states are being written: the drain takes its snapshot, and moves no server",
       %{a: a} = context do
    start_cluster(context)
    keys = start_unsynced(context, a, 3)
    hold(context, [:put])
    {draining, policy} = start_held_at_policy(context)
    refute_received {:log, ^a, _level, :states_stored, _fields}
    SimulatedStore.resume(context.store)
    wait_until(fn -> Enum.all?(keys, &(count_stored(context, &1) == 1)) end)
    assert map_size(placement(context, [a])) == 3
    send(policy, :go_on)
    await_log(a, :states_stored)
    assert %{moved: 3} = await_drain(draining)
  end

  test "states are stored long after the last server was asked: the drain takes a new snapshot",
       %{a: a} = context do
    start_cluster(context)
    start_unsynced(context, a, 3)
    SimulatedStore.configure(context.store, outage: :writes)
    {draining, policy} = start_held_at_policy(context)
    send(policy, :go_on)
    # Storing does not end for a second.
    await_log(a, :storing_progress)
    SimulatedStore.configure(context.store, outage: :none)
    assert_receive {:held, policy}, 60_000
    send(policy, :go_on)
    assert %{moved: 3} = await_drain(draining)
  end

  test "a server is still starting when the drain takes its snapshot: it moves, too", %{a: a} = context do
    start_cluster(context)
    start_unsynced(context, a, 3)
    starting = start_hanging(context, a, "k")
    {draining, policy} = start_held_at_policy(context)
    let_start(a, "k", starting)
    assert %{moved: 4} = await_second_snapshot(draining, policy)
  end

  test "after the drain has taken its snapshot a server has started and another one has ended: the first moves, too",
       %{a: a} = context do
    start_cluster(context)
    start_unsynced(context, a, 3)
    starting = start_hanging(context, a, "k")
    {draining, policy} = start_held_at_policy(context)
    let_start(a, "k", starting)
    stop_by_itself(whereis(context, a, "s3"))
    assert %{moved: 3} = await_second_snapshot(draining, policy)
  end

  test "a server has started and another one has ended after a shutdown's drain has begun: the first moves after the others",
       %{a: a, b: b, c: c} = context do
    [app | _apps] = start_cluster(context, handoff_on_shutdown: [max_concurrency: 3])
    keys = start_servers(context, a, 4)
    starting = start_hanging(context, a, "k")
    stopping = start_held(context, 3, fn -> stop_children(a, app) end)
    %{key: ended, pid: pid} = wait_until(fn -> only_server(a, context.sup) end)
    stop_by_itself(pid)
    let_start(a, "k", starting)
    SimulatedStore.resume(context.store)
    assert :ok = await_task(stopping)
    assert_all_run_on(context, ["k" | keys] -- [ended], [b, c])
  end

  test "a server is starting until a shutdown's drain has begun to move the others: it moves after them",
       %{a: a, b: b, c: c} = context do
    [app | _apps] = start_cluster(context)
    keys = start_servers(context, a, 3)
    starting = start_hanging(context, a, "k")
    stopping = start_held(context, 3, fn -> stop_children(a, app) end)
    let_start(a, "k", starting)
    SimulatedStore.resume(context.store)
    assert :ok = await_task(stopping)
    assert_all_run_on(context, ["k" | keys], [b, c])
  end

  test "a server is starting until a shutdown's second drain has begun to move another: it moves after that one",
       %{a: a, b: b, c: c} = context do
    [app | _apps] = start_cluster(context)
    keys = start_servers(context, a, 3)

    [second, third] = for key <- ["k2", "k3"], do: start_hanging(context, a, key)
    stopping = start_held(context, 3, fn -> stop_children(a, app) end)
    :ok = Servers.Troublesome.arm(a, "k2", :terminate, :hang)
    let_start(a, "k2", second)
    SimulatedStore.resume(context.store)
    wait_until(fn -> Servers.Troublesome.hangs?(a, "k2", :terminate) end)
    let_start(a, "k3", third)
    Servers.Troublesome.disarm(a, "k2", :terminate)
    assert :ok = await_task(stopping)
    assert_all_run_on(context, ["k2", "k3" | keys], [b, c])
  end

  @tag guarantee: "A drain never makes things worse than no drain"
  test "the store fails when the drain begins: no server is stopped, and all move with their states when it works again",
       %{a: a} = context do
    start_cluster(context)
    keys = start_unsynced(context, a, 20)
    SimulatedStore.configure(context.store, outage: :all)
    SimulatedStore.reset_stats(context.store)
    draining = start_drain(context, a)
    # Each server has tried at least once.
    wait_until(fn -> SimulatedStore.stats(context.store).error >= 20 end)
    assert map_size(placement(context, [a])) == 20

    SimulatedStore.configure(context.store, outage: :none)
    assert %{total: 20, moved: 20, ended: :done} = await_drain(draining)
    assert_counts(context, keys, 1)
  end

  @tag guarantee: "A drain never makes things worse than no drain"
  test "the store fails during a drain: no further server is stopped, and no state is lost or set back",
       %{a: a} = context do
    start_cluster(context)
    keys = start_unsynced(context, a, 20)
    draining = start_held(context, 2, fn -> drain(context, a, max_concurrency: 2, attempt_timeout_ms: 2_000) end)
    stopped = for {:get, key} <- SimulatedStore.paused(context.store), do: Path.basename(key)
    running = keys -- stopped
    for key <- running, do: 2 = ask(whereis(context, a, key), :add)

    SimulatedStore.configure(context.store, outage: :all)
    SimulatedStore.resume(context.store)
    wait_until(fn -> progress(context, a).failures >= 5 end)
    assert Enum.sort(Map.keys(placement(context, [a])) -- stopped) == Enum.sort(running)

    SimulatedStore.configure(context.store, outage: :none)
    assert %{total: 20, moved: 20, ended: :done} = await_drain(draining)
    assert_counts(context, stopped, 1)
    assert_counts(context, running, 2)
  end

  test "writes hang from the start: no server with a stored state is stopped as a probe", %{b: b, c: c} = context do
    {a, context} = with_own_clock(context, [b, c])
    FrozenClock.freeze(a)
    start_cluster(context)
    keys = start_servers(context, a, 6)
    1 = ask(whereis(context, a, hd(keys)), :add)
    SimulatedStore.pause(context.store, fn op, _key -> op == :put end)
    draining = start_drain(context, a, timeout_ms: 60_000)
    wait_until(fn -> progress(context, a).failures >= 1 end)
    FrozenClock.advance(a, 60_000)
    assert %{moved: 0, ended: :deadline} = await_drain(draining)
    writing = for {:put, key} <- SimulatedStore.paused(context.store), do: Path.basename(key)
    assert for(key <- keys, key in writing, do: key) == [hd(keys)]
    SimulatedStore.resume(context.store)
  end

  test "only writes fail for a while: servers with and without unsaved state keep running, and move later",
       %{a: a} = context do
    start_cluster(context)
    keys = start_servers(context, a, 10)
    draining = start_held(context, 1, fn -> drain(context, a, max_concurrency: 1) end)
    [{:get, first}] = SimulatedStore.paused(context.store)
    [changed | _unchanged] = keys -- [Path.basename(first)]
    1 = ask(whereis(context, a, changed), :add)

    SimulatedStore.configure(context.store, outage: :writes)
    SimulatedStore.resume(context.store)
    # The read of the first server succeeds, but it cannot be started. The others run, and are tried one at a
    # time.
    wait_until(fn -> progress(context, a).failures >= 4 end)
    assert Map.keys(placement(context, [a])) -- [Path.basename(first)] == Enum.sort(keys) -- [Path.basename(first)]
    SimulatedStore.configure(context.store, outage: :none)
    assert %{total: 10, moved: 10, failures: failures} = await_drain(draining)
    assert failures >= 4
    assert_counts(context, [changed], 1)
  end

  test "heartbeats in another store: after a store failure servers without unsaved state move again",
       %{a: a} = context do
    start_supervised!(Supervisor.child_spec({SimulatedStore, name: :heartbeats}, id: :heartbeats))
    heartbeats = {SimulatedStore, name: :heartbeats, node: node()}
    start_cluster(context, heartbeat_backend: heartbeats)
    keys = start_servers(context, a, 6)
    first = hd(keys)
    1 = ask(whereis(context, a, first), :add)
    SimulatedStore.configure(context.store, outage: :writes)
    # Moves begin when half of the time has passed.
    draining = start_drain(context, a, max_concurrency: 1, timeout_ms: 16_000)
    # Its write has failed in its attempt, too, so the other servers are not stopped without a successful
    # write.
    wait_until(fn -> progress(context, a).failures >= 1 end)
    assert map_size(placement(context, [a])) == 6
    SimulatedStore.configure(context.store, outage: :none)
    assert %{total: 6, moved: 6} = await_drain(draining)
    assert storage_key(context, "__durable_handoff/probe") not in SimulatedStore.keys(context.store)
  end

  test "many attempts have to know whether the store takes writes: one heartbeat answers all",
       %{a: a} = context do
    start_cluster(context)
    :ok = call(a, DurableHandoff.Host.Mark, :stop, [context.sup, 60_000])
    hold_heartbeats(context, a)
    takes_writes? = fn timeout_ms -> call(a, Sync, :store_takes_writes?, [context.sup, timeout_ms], 90_000) end
    callers = for _ <- 1..20, do: Task.async(fn -> takes_writes?.(60_000) end)
    wait_until(fn -> waiting_in(a, Sync) >= 20 end)
    wait_until(fn -> SimulatedStore.paused(context.store) != [] end)
    assert queued_marks(context, a) <= 1

    SimulatedStore.resume(context.store)
    assert Enum.uniq(for(caller <- callers, do: await_task(caller))) == [true]
  end

  test "the store does not answer: attempts that ask again and again leave no heartbeats to write", %{a: a} = context do
    start_cluster(context)
    :ok = call(a, DurableHandoff.Host.Mark, :stop, [context.sup, 60_000])
    hold_heartbeats(context, a)
    for _ <- 1..5, do: refute(call(a, Sync, :store_takes_writes?, [context.sup, 20]))
    wait_until(fn -> SimulatedStore.paused(context.store) != [] end)
    assert queued_marks(context, a) <= 1
    SimulatedStore.resume(context.store)
    assert call(a, Sync, :store_takes_writes?, [context.sup, 60_000])
  end

  test "a slow store refuses a state: the attempt ends in time, and stops no server without time for a move",
       %{a: a} = context do
    start_cluster(context)
    start_unsynced(context, a, 1)
    pid = whereis(context, a, "s1")
    for _ <- 1..8, do: SimulatedStore.fail_next(context.store, :put, storage_key(context, "s1"), :slow_down)
    listen_to_telemetry(a)
    # There is no time for a sync, a probe and another sync. With all three the server would count as not
    # storable.
    SimulatedStore.configure(context.store, latency_ms: 600)
    draining = start_drain(context, a, attempt_timeout_ms: 1_000, timeout_ms: 10_000)

    assert_receive {:event, [:durable_handoff, :attempt, :stop], _duration, metadata}, 60_000
    assert %{outcome: {:untouched, _blame}} = metadata
    assert call(a, Process, :alive?, [pid])
    SimulatedStore.configure(context.store, latency_ms: 0)
    await_drain(draining)
  end

  for {trouble, failing} <- [
        {"the final write fails after the stop", [put: :unavailable]},
        {"the final write fails, and the read after it with an unknown error", [put: :strange, get: :strange]}
      ] do
    test "#{trouble}: the server starts again and does not count as moved", %{a: a, b: b, c: c} = context do
      start_cluster(context)
      1 = ask(start_server(context, a, Counter, "k"), :add_sync)

      for {op, error} <- unquote(failing),
          do: SimulatedStore.fail_next(context.store, op, storage_key(context, "k"), error)

      assert {:ok, %{total: 1, moved: 0, left: %{state_not_stored: 1}}} = drain(context, a)
      assert_all_run_on(context, ["k"], [b, c])
      assert_counts(context, ["k"], 1)
    end
  end

  @tag guarantee: "A drain never makes things worse than no drain"
  test "states that cannot be stored: those servers keep running and are reported, the others move",
       %{a: a} = context do
    start_cluster(context)
    keys = start_unsynced(context, a, 12)
    {unstorable, others} = Enum.split(keys, 4)

    for key <- unstorable, _ <- 1..8 do
      SimulatedStore.fail_next(context.store, :put, storage_key(context, key), {:not_encodable, :a_pid})
    end

    assert {:ok, report} = drain(context, a, max_consecutive_failures: 2)
    assert %{moved: 8, ended: :done, left: left, stored: %{stored: 8, failed: 4}} = report
    assert left == %{not_storable: 4}
    assert for(%{key: key, error: error} <- report.first_errors, error =~ "not_encodable", do: key) -- unstorable == []
    assert length(report.first_errors) == 4
    assert Enum.sort(Map.keys(placement(context, [a]))) == Enum.sort(unstorable)
    assert_counts(context, others, 1)
    for key <- unstorable, do: assert(ask(whereis(context, a, key), :get) == 1)
  end

  @tag guarantee: "Nothing is lost that a graceful shutdown would have kept"
  test "no move begins while a server has not been asked to store its state", %{a: a} = context do
    # Held writes must not time out, however long the steps take.
    start_cluster(context, graceful_shutdown_concurrency: 2, handoff_on_shutdown: [attempt_timeout_ms: 120_000])
    keys = start_unsynced(context, a, 80)
    hold(context, [:get, :put])
    draining = start_drain(context, a, timeout_ms: 240_000)

    # Two servers are asked at a time. Each write that is let through makes room for one more; none of them is for a
    # move. Before each step at least one server waits for its turn.
    for _stored <- 1..78 do
      await_held(context, 2)
      assert Enum.all?(SimulatedStore.paused(context.store), &match?({:put, _key}, &1))
      assert map_size(placement(context, [a])) == 80
      SimulatedStore.step(context.store)
    end

    SimulatedStore.resume(context.store)
    assert %{moved: 80, stored: %{stored: 80, unchanged: 0, failed: 0}} = await_drain(draining)
    assert_counts(context, keys, 1)
  end

  test "writes hang, and more servers wait than may write at a time: none is stopped before its turn",
       %{b: b, c: c} = context do
    {a, context} = with_own_clock(context, [b, c])
    FrozenClock.freeze(a)
    start_cluster(context)
    start_unsynced(context, a, 60)
    hold(context, [:put])
    listen_to_log(context, a)
    draining = start_drain(context, a, timeout_ms: 60_000)
    # Slow servers would not be waited for that long.
    for _second <- 1..2, do: await_log(a, :storing_progress)
    FrozenClock.advance(a, 60_000)
    assert %{moved: 0, attempts: 0, left: %{deadline: 60}} = await_drain(draining)
    assert length(SimulatedStore.paused(context.store)) == 50
    SimulatedStore.resume(context.store)
  end

  defp hold_heartbeats(context, node) do
    key = storage_key(context, "__nodes/#{node}")
    SimulatedStore.pause(context.store, fn op, held -> op == :put and held == key end)
    held_ms = System.system_time(:millisecond)
    # The latest heartbeat has this time at most, and its copy with a mark one millisecond more.
    wait_until(fn -> System.system_time(:millisecond) > held_ms + 1 end)
  end

  # The marks that wait in the mailbox of DurableServer's LifecycleManager, each of which writes a heartbeat. One may
  # wait for the heartbeat that the interval has begun.
  defp queued_marks(context, node) do
    manager = call(node, DurableHandoff.Host, :whereis, [context.sup])
    {:messages, messages} = call(node, Process, :info, [manager, :messages])
    Enum.count(messages, &match?({:"$gen_call", _from, :stop_discovery}, &1))
  end

  defp start_drain(context, node, overrides \\ []), do: Task.async(fn -> drain(context, node, overrides) end)

  # A drain of a that waits at its policy, for at most a quarter of its time, and the process in which the policy waits.
  defp start_held_at_policy(%{a: a} = context) do
    listen_to_log(context, a)
    hold_policy(a)
    draining = start_drain(context, a, timeout_ms: 240_000, eligible: &HandoffCase.held_policy/1)
    assert_receive {:held, policy}, 60_000
    {draining, policy}
  end

  # Lets such a drain go on to its second snapshot, for which it asks the policy again, and to its end.
  defp await_second_snapshot(draining, policy) do
    send(policy, :go_on)
    assert_receive {:held, policy}, 60_000
    send(policy, :go_on)
    await_drain(draining)
  end

  # Starts a server whose `init` hangs until `let_start/3`. Returns the task that starts it.
  defp start_hanging(context, node, key) do
    :ok = Servers.Troublesome.arm(node, key, :init, :hang)
    starting = Task.async(fn -> start_server(context, node, Servers.Troublesome, key, %{count: 0}) end)
    wait_until(fn -> Servers.Troublesome.hangs?(node, key, :init) end)
    starting
  end

  defp let_start(node, key, starting) do
    Servers.Troublesome.disarm(node, key, :init)
    await_task(starting)
  end

  # For good, so that no other node starts the server.
  defp stop_by_itself(pid) do
    monitor = Process.monitor(pid)
    :ok = ask(pid, {:stop, :permanent})
    assert_receive {:DOWN, ^monitor, :process, ^pid, _normal}, 60_000
  end

  # The one server that runs on `node`; nil while there are others.
  defp only_server(node, sup),
    do: with([_, _ | _] <- call(node, DurableHandoff.Host, :servers, [sup]), do: nil, else: ([one] -> one))

  defp await_drain(task) do
    assert {:ok, report} = await_task(task)
    report
  end

  # The outcomes of the attempts of a drain that has ended.
  defp outcomes do
    receive do
      {:event, [:durable_handoff, :attempt, _how], _duration, %{outcome: outcome}} -> [outcome | outcomes()]
    after
      0 -> []
    end
  end

  defp progress(context, node) do
    {:ok, %{progress: progress}} = status(context, node)
    progress || %{failures: 0}
  end
end
