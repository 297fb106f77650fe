defmodule Handoff.ServerTroubleTest do
  @moduledoc """
  A server does not stop, does not start, stops by itself or already runs elsewhere: the drain continues.
  """

  use HandoffCase, nodes: 3

  alias DurableHandoff.Host.Reservation

  @tag guarantee: "The node never waits longer than `timeout_ms`"
  test "terminate/2 hangs: the others move, the drain ends in time, and the reservation is cleared after terminate/2",
       %{a: a, b: b, c: c} = context do
    # Otherwise other nodes would start the server when it ends.
    start_cluster(context, handoff_on_shutdown: [start_leftovers: false])
    stuck = start_server(context, a, Troublesome, "stuck", %{count: 0})
    Troublesome.arm(a, "stuck", :terminate, :hang)
    keys = start_servers(context, a, 6)
    watch = OnTime.watch(a)

    assert {:ok, report} = drain(context, a, timeout_ms: 12_000, attempt_timeout_ms: 4_000)

    assert %{total: 7, moved: 6, left: left, ended: :deadline} = report
    assert left == %{deadline: 1}
    OnTime.assert_ended(watch, :drain, 12_000)
    assert call(a, Process, :alive?, [stuck])

    Troublesome.disarm(a, "stuck", :terminate)
    await_down(stuck)
    wait_until(fn -> drain_processes(a) == [] end)
    assert_all_run_on(context, keys, [b, c])
  end

  test "terminate/2 raises, so its final write is skipped: it starts again and never counts as moved",
       %{a: a, b: b, c: c} = context do
    start_cluster(context)
    keys = start_servers(context, a, 4)
    start_server(context, a, Troublesome, "raises", %{count: 3})
    Troublesome.arm(a, "raises", :terminate, :raise)

    assert {:ok, %{total: 5, moved: 4, left: left, targets: targets} = report} = drain(context, a)
    assert left == %{state_not_stored: 1}
    assert targets |> Map.values() |> Enum.sum() == 4
    assert [%{key: "raises"}] = report.first_errors
    assert_all_run_on(context, ["raises" | keys], [b, c])
    assert ask(await_moved(context, b, "raises", a), :get) == 3
  end

  test "terminate/2 raises in many servers: not counted as store failures, so other moves are not delayed",
       %{a: a, b: b, c: c} = context do
    start_cluster(context)
    listen_to_telemetry(a)
    raising = for number <- 1..6, do: "raises-#{number}"

    for key <- raising do
      start_server(context, a, Troublesome, key, %{count: 3})
      Troublesome.arm(a, key, :terminate, :raise)
    end

    assert {:ok, %{total: 6, moved: 0, left: %{state_not_stored: 6}}} = drain(context, a, max_attempts: 1)

    for key <- raising do
      assert_receive {:event, [_library, :attempt, _end], _duration, %{key: ^key, attempt: 1, outcome: outcome}}, 30_000
      assert outcome == :stop_failed
    end

    assert_all_run_on(context, raising, [b, c])
  end

  test "terminate/2 takes longer than an attempt may: the server moves once it has stopped",
       %{a: a, b: b, c: c} = context do
    start_cluster(context)
    slow = start_server(context, a, Troublesome, "slow", %{count: 3})
    Troublesome.arm(a, "slow", :terminate, :hang)
    draining = Task.async(fn -> drain(context, a, attempt_timeout_ms: 1_000) end)
    wait_until(fn -> match?({:ok, %{progress: %{stopping: 1}}}, status(context, a)) end)

    Troublesome.disarm(a, "slow", :terminate)
    await_down(slow)
    assert {:ok, %{total: 1, moved: 1}} = await_task(draining)
    assert_all_run_on(context, ["slow"], [b, c])
    assert ask(await_moved(context, b, "slow", a), :get) == 3
  end

  test "a server is busy until after the drain: it cannot store its state, so it keeps running", %{a: a} = context do
    start_cluster(context)
    busy = start_server(context, a, Troublesome, "busy", %{count: 0})
    :ok = ask(busy, :block)

    assert {:ok, %{moved: 0, left: left}} = drain(context, a, attempt_timeout_ms: 200)
    assert left == %{attempts_exhausted: 1}
    wait_until(fn -> drain_processes(a) == [] end)

    Troublesome.disarm(a, "busy", :call)
    assert ask(busy, :add) == 1
    assert reservations(context) == []
  end

  test "a server is busy when a drain begins: it moves last, whatever its priority, so no other waits for it",
       %{a: a, b: b, c: c} = context do
    start_cluster(context)
    :ok = ask(start_server(context, a, Troublesome, "busy", %{count: 0}), :block)
    keys = start_servers(context, a, 6)
    first = %{Troublesome => [priority: 1_000_000_000]}
    times = [attempt_timeout_ms: 120_000, timeout_ms: 240_000]
    draining = Task.async(fn -> drain(context, a, [modules: first, max_concurrency: 1] ++ times) end)
    wait_until(fn -> Map.keys(placement(context, [a])) == ["busy"] end)
    Troublesome.disarm(a, "busy", :call)
    assert {:ok, %{total: 7, moved: 7}} = await_task(draining)
    assert_all_run_on(context, ["busy" | keys], [b, c])
  end

  test "more servers are busy than are asked to store their states at a time: the others move meanwhile",
       %{a: a, b: b, c: c} = context do
    # None of the busy ones is given up.
    start_cluster(context, handoff_on_shutdown: [attempt_timeout_ms: 120_000])
    busy = for n <- 1..100, do: "busy#{n}"
    for key <- busy, do: :ok = ask(start_server(context, a, Troublesome, key, %{count: 0}), :block)
    keys = start_servers(context, a, 20)
    draining = Task.async(fn -> drain(context, a, timeout_ms: 240_000) end)
    wait_until(fn -> Enum.sort(Map.keys(placement(context, [a]))) == Enum.sort(busy) end)
    Troublesome.disarm_all(a)
    assert {:ok, %{total: 120, moved: 120}} = await_task(draining)
    assert_all_run_on(context, busy ++ keys, [b, c])
  end

  for {trouble, text} <- [raise: "told to raise", ignore: ":ignore", stop: "told_to_stop"] do
    test "init returns #{trouble} on one target: the server moves to the other", %{a: a, b: b, c: c} = context do
      start_cluster(context)
      start_server(context, a, Troublesome, "k", %{count: 5})
      first = first_target(context, a)
      [second] = [b, c] -- [first]
      Troublesome.arm(first, "k", :init, unquote(trouble))

      assert {:ok, %{total: 1, moved: 1, retried: 1, first_errors: [error]}} = await_task(drain_heard(context))
      assert error.error =~ unquote(text)
      Troublesome.disarm(first, "k", :init)
      assert_all_run_on(context, ["k"], [second])
      assert ask(await_on(context, second, "k", second), :get) == 5
    end

    test "init returns #{trouble} everywhere: the other servers move, and its reservation is cleared",
         %{a: a, b: b, c: c} = context do
      start_cluster(context)
      start_server(context, a, Troublesome, "k", %{count: 5})
      keys = start_servers(context, a, 4)
      for node <- [b, c], do: Troublesome.arm(node, "k", :init, unquote(trouble))

      assert {:ok, %{moved: 4, left: left}} = drain(context, a)
      assert left == %{attempts_exhausted: 1}
      assert_all_run_on(context, keys, [b, c])

      for node <- [b, c], do: Troublesome.disarm(node, "k", :init)
      # A receiver may be about to start the server.
      start = fn -> ensure_started(context, b, "k", Troublesome, %{key: "k", count: 0}) end
      pid = wait_until(fn -> with {:ok, {pid, _meta}} <- start.(), do: pid, else: (_later -> nil) end)
      assert ask(pid, :get) == 5
    end
  end

  test "init takes longer than DurableServer waits: the server counts as moved only when init has returned",
       %{b: b, c: c} = context do
    {first, draining} = drain_hanging_init(context, max_attempts: 1)
    refute Enum.any?([b, c], &whereis(context, &1, "k"))

    Troublesome.disarm(first, "k", :init)
    assert {:ok, %{moved: 1, retried: 0, targets: targets}} = await_task(draining)
    assert targets == %{Atom.to_string(first) => 1}
    assert ask(await_on(context, first, "k", first), :get) == 5
  end

  test "init raises after DurableServer has stopped waiting: the server moves to the other target",
       %{b: b, c: c} = context do
    {first, draining} = drain_hanging_init(context)
    [second] = [b, c] -- [first]
    Troublesome.arm(first, "k", :init, :raise)
    assert {:ok, %{moved: 1, retried: 1, targets: targets}} = await_task(draining)
    assert targets == %{Atom.to_string(second) => 1}
    assert_all_run_on(context, ["k"], [second])
  end

  test "init raises on the only target: a node that joins later starts the server without a request",
       %{a: a, b: b, c: c} = context do
    [_app, app] = for node <- [a, b], do: start_handoff(context, node, handoff_on_shutdown: [start_leftovers: false])
    Cluster.await_heartbeats([a, b], context.sup)
    start_server(context, a, Troublesome, "k", %{count: 5})
    Troublesome.arm(b, "k", :init, :raise)
    assert {:ok, %{moved: 0}} = drain(context, a)
    assert %{status: :stopped_graceful, permanent: true} = Map.take(stored(context, "k").meta, [:status, :permanent])

    # Otherwise DurableServer may leave the server to that node's sweep for a while.
    :ok = stop_children(b, app)
    start_handoff(context, c, backend(context, discovery_interval_ms: 20))
    assert ask(await_on(context, c, "k", c), :get) == 5
  end

  test "after a start that failed half way a receiver starts the server, even on the node where it failed",
       %{a: a, b: b, c: c} = context do
    start_cluster(context)
    start_server(context, a, Troublesome, "k", %{count: 5})
    Troublesome.arm(b, "k", :init, :raise)
    assert {:error, _init} = rehome(context, a, Troublesome, "k", target_node: b)
    leave_half_started(context, "k", b)
    # The server is still set to fail, so it has not started, and nothing is stored as if it ran.
    assert take_over(context, Troublesome) == {:failed, :server}
    Troublesome.disarm(b, "k", :init)
    assert take_over(context, Troublesome) == :started
    assert ask(await_on(context, c, "k", b), :get) == 5
  end

  test "after a failed start the server is stored as stopped; while a start goes on it is not",
       %{a: a, b: b} = context do
    start_cluster(context, handoff_on_shutdown: [start_leftovers: false])
    pid = start_server(context, a, Troublesome, "k", %{count: 5})
    storage = call(a, DurableHandoff.Host, :storage, [context.sup])
    etag = stored(context, "k").etag
    assert :ok = call(a, DurableHandoff.Host.Reservation, :release, [storage, "k"])
    assert stored(context, "k").etag == etag

    :ok = call(a, Host, :terminate_child, [context.sup, "k"])
    await_down(pid)
    leave_half_started(context, "k", b)
    assert :ok = call(a, DurableHandoff.Host.Reservation, :release, [storage, "k"])
    assert %{status: :stopped_graceful, permanent: true} = Map.take(stored(context, "k").meta, [:status, :permanent])
    assert stored(context, "k").state["count"] == 5
  end

  test "a server that is deleted while a failed start is undone stays deleted", %{a: a, b: b} = context do
    start_cluster(context, handoff_on_shutdown: [start_leftovers: false])
    pid = start_server(context, a, Counter, "k", %{count: 5})
    :ok = call(a, Host, :terminate_child, [context.sup, "k"])
    await_down(pid)
    leave_half_started(context, "k", b)
    storage = call(a, DurableHandoff.Host, :storage, [context.sup])
    SimulatedStore.pause(context.store, {:put, storage_key(context, "k")})
    releasing = Task.async(fn -> call(a, DurableHandoff.Host.Reservation, :release, [storage, "k"]) end)
    wait_until(fn -> SimulatedStore.paused(context.store) != [] end)
    :ok = SimulatedStore.delete_object(place(context), storage_key(context, "k"))
    SimulatedStore.resume(context.store)
    assert await_task(releasing) == :ok
    assert SimulatedStore.peek(context.store, storage_key(context, "k")) == nil
  end

  test "the final write conflicts with a start that then fails: stored as stopped, not taken for another owner's",
       %{a: a, b: b} = context do
    start_cluster(context, handoff_on_shutdown: [start_leftovers: false])
    pid = start_server(context, a, Troublesome, "k", %{count: 5})
    leave_half_started(context, "k", b)

    server = %{key: "k", module: Troublesome, pid: pid, meta: %{}}
    assert {{:displaced, :server}, _why} = move_heard(context, a, server, b)
  end

  test "a start on the target fails after its registration: displaced, not moved", %{a: a, b: b} = context do
    start_cluster(context, handoff_on_shutdown: [start_leftovers: false])
    pid = start_server(context, a, Counter, "k", %{count: 5})
    key = storage_key(context, "k")
    SimulatedStore.pause(context.store, {:get, key})
    SimulatedStore.fail_next(context.store, :get, key, :unavailable)

    server = %{key: "k", module: Counter, pid: pid, meta: %{}}
    moving = Task.async(fn -> move(context, a, server, b) end)
    wait_until(fn -> SimulatedStore.paused(context.store) != [] end)
    await_down(pid)
    call(b, FailingStart, :start, [context.sup, "k", Counter])
    await_on(context, a, "k", b)
    SimulatedStore.resume(context.store)

    assert {{:displaced, :store}, {:returned, {:error, _reason}}} = await_task(moving)
  end

  test "a client starts a stopped server here again: it is not stopped for the next attempt", %{a: a, b: b} = context do
    # A client can start it when its reservation has expired.
    for node <- [a, b], do: start_host(node, context.opts)
    await_heartbeats([a, b], context.sup)
    start_server(context, a, Troublesome, "k", %{count: 0})
    [server] = call(a, DurableHandoff.Host, :servers, [context.sup])
    Troublesome.arm(b, "k", :init, :raise)
    assert {{:displaced, :server}, _why} = move_heard(context, a, server, b)
    Troublesome.disarm(b, "k", :init)
    :ok = call(a, Reservation, :release, [call(a, DurableHandoff.Host, :storage, [context.sup]), "k"])
    again = start_server(context, a, Troublesome, "k")
    assert ask(again, :add) == 1
    # It could not store that.
    SimulatedStore.configure(context.store, outage: :writes)
    assert {:lost_race, nil} = attempt(context, a, server, b, :displaced)
    assert ask(again, :get) == 1
  end

  test "a start elsewhere fails after its registration: a receiver starts the server", %{a: a, b: b, c: c} = context do
    start_cluster(context)
    pid = start_server(context, a, Counter, "k", %{count: 5})
    :ok = call(a, Host, :terminate_child, [context.sup, "k"])
    await_down(pid)
    await_none(context, b, "k")
    call(c, FailingStart, :start, [context.sup, "k", Counter])
    await_on(context, b, "k", c)

    # The registry may still have the dead process.
    wait_until(fn ->
      outcome = take_over(context, Counter)
      assert outcome in [:started, {:wait, :starting}]
      outcome == :started
    end)

    assert ask(await_on(context, a, "k", b), :get) == 5
  end

  test "a server stops by itself before its turn: reported as gone, and not started", %{a: a} = context do
    start_cluster(context)
    {moving, other, draining} = hold_first(context, a)

    :ok = call(a, Host, :terminate_child_permanent, [context.sup, other])
    SimulatedStore.resume(context.store)

    assert {:ok, %{moved: 1, left: left}} = await_task(draining)
    assert left == %{gone: 1}
    assert Map.keys(placement(context)) == [moving]
    assert reservations(context) == []
  end

  test "a server crashes before its turn: the drain goes on", %{a: a} = context do
    start_cluster(context)
    {moving, other, draining} = hold_first(context, a)

    pid = whereis(context, a, other)
    call(a, Process, :exit, [pid, :kill])
    await_down(pid)
    SimulatedStore.resume(context.store)

    assert {:ok, %{moved: 1, left: left}} = await_task(draining)
    assert left |> Map.values() |> Enum.sum() == 1
    assert moving in Map.keys(placement(context))
    assert reservations(context) == []
  end

  test "a client starts the server elsewhere before its turn: the new owner keeps it", %{a: a, b: b} = context do
    start_cluster(context)
    {moving, other, draining} = hold_first(context, a)

    await_on(context, b, other, a)
    :ok = call(a, Host, :terminate_child, [context.sup, other])
    await_none(context, b, other)
    {:ok, {pid, _}} = ensure_started(context, b, other)
    await_on(context, a, other, node(pid))
    SimulatedStore.resume(context.store)

    assert {:ok, %{moved: 1, left: left}} = await_task(draining)
    assert left == %{lost_race: 1}
    assert call(node(pid), Process, :alive?, [pid])
    assert Enum.sort(Map.keys(placement(context))) == Enum.sort([moving, other])
    assert reservations(context) == []
  end

  test "the store read after the stop fails: the server is displaced, retried and moved",
       %{a: a, b: b, c: c} = context do
    start_cluster(context)
    start_server(context, a, Counter, "k")
    SimulatedStore.fail_next(context.store, :get, storage_key(context, "k"), :unavailable)
    assert {:ok, %{total: 1, moved: 1, retried: 1}} = await_task(drain_heard(context))
    assert_all_run_on(context, ["k"], [b, c])
  end

  test "another writer replaces the object of a server before its turn, which ends it: gone, and no store failure",
       %{a: a} = context do
    start_cluster(context)
    listen_to_telemetry(a)
    {moving, other, draining} = hold_first(context, a)
    replace_object(context, other)
    assert ask(whereis(context, a, other), :add) == 1
    SimulatedStore.resume(context.store)

    assert {:ok, %{moved: 1, left: %{gone: 1}}} = await_task(draining)
    assert_receive {:event, [_library, :attempt, _end], _duration, %{key: ^other, attempt: 1, outcome: :gone}}
    assert Map.keys(placement(context)) == [moving]
  end

  test "another writer has replaced the server's object: not counted as a store failure, and a receiver gives up",
       %{a: a, b: b, c: c} = context do
    start_cluster(context, handoff_on_shutdown: [max_attempts: 2])
    keys = start_servers(context, a, 4)
    start_server(context, a, Counter, "k")
    for node <- [a, b, c], do: listen_to_telemetry(node)
    listen_to_log(context, a)
    replace_object(context, "k")

    assert {:ok, %{moved: 4, left: %{attempts_exhausted: 1}, adopted_later: 1}} = drain(context, a)

    for attempt <- 1..2 do
      assert_receive {:event, [_library, :attempt, _end], _duration, %{key: "k", attempt: ^attempt, outcome: outcome}}
      assert outcome == {:displaced, :server}
    end

    assert_receive {:event, [_library, :leftovers, :stop], _started, %{dropped: %{failed: 1}}}, 60_000
    refute_received {:log, ^a, _level, :reservation_left, _metadata}
    assert_all_run_on(context, keys, [b, c])
  end

  defp replace_object(context, key),
    do: {:ok, _object} = SimulatedStore.put_object(place(context), storage_key(context, key), %{"not" => "a state"})

  # Drains the server "k". Its targets have received the stop before they are asked to start it, so no attempt
  # is repeated for that reason.
  defp drain_heard(%{a: a, b: b, c: c} = context, overrides \\ []) do
    hold_move(context, a, "k", [b, c])
    draining = Task.async(fn -> drain(context, a, overrides) end)
    await_stopped(context, "k", [b, c])
    SimulatedStore.resume(context.store)
    draining
  end

  # The same for a server whose init hangs on its first target, when DurableServer has stopped waiting for it.
  defp drain_hanging_init(%{a: a} = context, overrides \\ []) do
    start_cluster(context)
    start_server(context, a, Troublesome, "k", %{count: 5})
    first = first_target(context, a)
    Troublesome.arm(first, "k", :init, :hang)
    draining = drain_heard(context, [attempt_timeout_ms: 30_000] ++ overrides)
    wait_until(fn -> stored(context, "k").meta.node_str == Atom.to_string(first) end)
    # DurableServer stops waiting after 5 s; then the attempt reads the store.
    hold_reads(context, "k")
    wait_until(fn -> SimulatedStore.paused(context.store) != [] end)
    SimulatedStore.resume(context.store)
    {first, draining}
  end

  # b starts the server "k" as a leftover of a.
  defp take_over(%{a: a, b: b, sup: sup}, module),
    do: call(b, DurableHandoff.Host.Takeover, :start, [sup, "k", module, a, 30_000])

  defp move(context, source, server, target), do: attempt(context, source, server, target, :running)

  # The target has received the stop before it is asked to start the server.
  defp move_heard(context, source, server, target) do
    hold_move(context, source, server.key, [target])
    moving = Task.async(fn -> move(context, source, server, target) end)
    await_stopped(context, server.key, [target])
    SimulatedStore.resume(context.store)
    await_task(moving)
  end

  defp attempt(context, source, server, target, state),
    do: call(source, DurableHandoff.Host.Rehome, :run, [context.sup, server, state, Atom.to_string(target), 30_000])

  # The state that the real DurableServer leaves when init fails on `node`: the object is claimed by a process
  # that has ended.
  defp leave_half_started(context, key, node) do
    dead = call(node, Kernel, :spawn, [:erlang, :self, []])
    await_down(dead)
    free = %{restart_attempt_node: nil, restart_attempt_time: nil, restart_attempt_ttl: nil}
    owner = Map.merge(free, %{status: :running, pid: dead, node_str: Atom.to_string(node), permanent: false})
    stored = stored(context, key)
    half = %{stored | meta: Map.merge(stored.meta, owner)}
    {:ok, _} = SimulatedStore.put_object(place(context), storage_key(context, key), half)
  end

  # Starts two servers and a drain that moves one at a time, held in the middle of the first. Returns the keys
  # of the first and the other, and the drain's task.
  defp hold_first(context, node) do
    start_server(context, node, Troublesome, "first", %{count: 0})
    start_server(context, node, Counter, "second")
    overrides = [max_concurrency: 1, modules: %{Troublesome => [priority: 1]}]
    {"first", "second", start_held(context, 1, fn -> drain(context, node, overrides) end, "first")}
  end

  defp first_target(context, node) do
    {:ok, %{moves: [%{target: target}]}} = call(node, DurableHandoff, :plan, [context.sup, []])
    String.to_existing_atom(target)
  end
end
