defmodule Handoff.LeftoversTest do
  @moduledoc "Servers that a drain could not move in time start elsewhere, once, as soon as they are stopped."

  use LeftoversCase, nodes: 3

  @tag guarantee: "Nothing is lost that a graceful shutdown would have kept"
  test "the deadline passes: the remaining servers start elsewhere at once with their states, without a sweep",
       %{b: b, c: c} = context do
    # Both receivers get an offer.
    a = start_node(patient: true)
    context = %{context | nodes: [a, b, c]}
    app = start_uneven(context, a, [b, c])
    keys = start_servers(context, a, 20)
    for key <- keys, do: assert(ask(whereis(context, a, key), :add) == 1)
    block_drain(context, a)
    for node <- [a, b, c], do: listen_to_log(context, node)

    stopping = Task.async(fn -> stop_children(a, app) end)
    await_log(a, :leftovers_offered, %{accepted: 21, left: 21})
    unblock(a)
    assert :ok = await_task(stopping)

    await_all_on(context, ["blocker" | keys], [b, c])
    assert context |> placement([b, c]) |> Map.take(keys) |> Map.values() |> Enum.frequencies() |> map_size() == 2
    for key <- keys, do: assert(ask(await_moved(context, b, key, a), :get) == 1)
    await_idle(context, [b, c])
    await_log(b, :leftovers_ended, %{source: a})
  end

  test "an offer that is accepted leaves no crash report", %{a: a, b: b, c: c} = context do
    app = start_uneven(context, a, [b, c])
    block_drain(context, a)
    listen_to_log(context, a)
    %{filters: filters} = call(a, :logger, :get_primary_config, [])
    :ok = call(a, :logger, :set_primary_config, [:filters, []])
    on_exit(fn -> call(a, :logger, :set_primary_config, [:filters, filters]) end)
    stop_blocked(context, a, app)
    refute_received {:log, ^a, _level, :crash_report, _metadata}
  end

  test "a receiver's supervisor restarts: it still learns of the stop by an event", %{a: a, b: b} = context do
    app = start_uneven(context, a, [b])
    block_drain(context, a)
    stopping = Task.async(fn -> stop_children(a, app) end)
    wait_until(fn -> held(context, b) == %{"blocker" => :waiting} end)
    manager = call(b, DurableHandoff.Host, :whereis, [context.sup])
    true = call(b, Process, :exit, [manager, :kill])
    wait_until(fn -> call(b, DurableHandoff.Host, :whereis, [context.sup]) not in [nil, manager] end)
    pid = await_on(context, b, "blocker", a)
    wait_until(fn -> held(context, b) == %{"blocker" => :waiting} end)
    receiver = receiver(context, b)
    send(receiver, :tick)
    :ok = call(b, :sys, :suspend, [receiver])
    unblock(a)
    wait_until(fn -> {:unregistered, "blocker", pid} in events(receiver) end)
    :ok = call(b, :sys, :resume, [receiver])
    assert :ok = await_task(stopping)
    await_all_on(context, ["blocker"], [b])
  end

  test "a receiver that does not answer keeps no other one from its offer", %{a: a, b: b, c: c} = context do
    app = start_uneven(context, a, [b, c])
    keys = start_servers(context, a, 4)
    block_drain(context, a)
    listen_to_log(context, a)
    :ok = call(b, :sys, :suspend, [receiver(context, b)])
    stopping = Task.async(fn -> stop_children(a, app) end)
    await_log(a, :leftovers_offered, %{accepted: 5, left: 5})
    unblock(a)
    :ok = await_task(stopping)
    await_all_on(context, ["blocker" | keys], [c])
    :ok = call(b, :sys, :resume, [receiver(context, b)])
  end

  test "a drain does not end at its limit: its leftovers are still offered", %{b: b, c: c} = context do
    # In the stopped time the drain does not know that its time is over.
    {a, context} = with_own_clock(context, [b, c])
    app = start_uneven(context, a, [b, c])
    keys = start_servers(context, a, 4)
    block_drain(context, a)
    listen_to_log(context, a)
    FrozenClock.freeze(a)

    stopping = Task.async(fn -> stop_children(a, app) end)
    await_log(a, :drain_failed, %{reason: :overdue})
    await_log(a, :leftovers_offered, %{accepted: 5, left: 5})
    unblock(a)
    :ok = await_task(stopping)
    await_all_on(context, ["blocker" | keys], [b, c])
  end

  test "a shutdown joins a drain/2 with a longer timeout in which a move hangs: the leftovers are offered in time",
       %{b: b, c: c} = context do
    {a, context} = with_own_clock(context, [b, c])
    app = start_uneven(context, a, [b, c], timeout_ms: 3_600_000)
    keys = start_servers(context, a, 4)
    block_drain(context, a)
    listen_to_log(context, a)
    listen_to_telemetry(a)
    FrozenClock.freeze(a)
    draining = Task.async(fn -> drain(context, a, timeout_ms: 7_200_000) end)
    wait_until(fn -> Troublesome.hangs?(a, "blocker", :terminate) end)
    stopping = Task.async(fn -> stop_children(a, app) end)
    assert_receive {:event, [:durable_handoff, :shutdown, :start], _joined, _metadata}, 60_000
    # A quarter of a second is left when the drain has to be done. The Drainer's timer runs for an hour, so its message
    # comes from here.
    FrozenClock.advance(a, 3_599_750)
    [drain] = drain_processes(a, [DurableHandoff.Drain])
    send({:"#{context.sup}_handoff_drainer", a}, {:cancel, drain})
    await_log(a, :leftovers_offered, %{accepted: 5, left: 5})
    assert {:ok, %{ended: :cancelled, moved: 0, left: %{cancelled: 5}}} = await_task(draining)
    unblock(a)
    assert :ok = await_task(stopping)
    await_all_on(context, ["blocker" | keys], [b, c])
  end

  test "a shutdown joins a slower drain/2 in which a move hangs: it moves the others meanwhile",
       %{a: a, b: b, c: c} = context do
    app = start_uneven(context, a, [b, c], timeout_ms: 3_600_000, max_concurrency: 20)
    keys = start_servers(context, a, 4)
    block_drain(context, a)
    draining = Task.async(fn -> drain(context, a, max_concurrency: 1) end)
    wait_until(fn -> match?({:ok, %{progress: %{in_flight: 1}}}, status(context, a)) end)
    stopping = Task.async(fn -> stop_children(a, app) end)
    assert {:ok, %{ended: :cancelled, moved: 0, left: %{cancelled: 5}}} = await_task(draining)
    wait_until(fn -> Enum.sort(Map.keys(placement(context, [b, c]))) == keys end)
    unblock(a)
    assert :ok = await_task(stopping)
    await_all_on(context, ["blocker" | keys], [b, c])
  end

  test "a server without its final write that has no new owner in time is offered, too", %{b: b} = context do
    {a, context} = with_own_clock(context, [b])
    FrozenClock.freeze(a)
    start_uneven(context, a, [b])
    start_server(context, a, Troublesome, "k", %{count: 0})
    :ok = Troublesome.arm(a, "k", :terminate, :raise)
    hold_reads(context, "k")
    draining = Task.async(fn -> drain(context, a, timeout_ms: 600_000) end)

    # DurableServer and the attempt find out that there was no final write. The next read begins the start on the target.
    for _read <- 1..2 do
      await_held(context, 1)
      :ok = SimulatedStore.step(context.store)
    end

    wait_until(fn -> match?({:ok, %{progress: %{retried: 1}}}, status(context, a)) end)
    await_held(context, 1)
    FrozenClock.advance(a, 600_000)
    assert {:ok, %{moved: 0, left: %{state_not_stored: 1}}} = await_task(draining)
    # That start fails.
    SimulatedStore.fail_next(context.store, :put, storage_key(context, "k"), :slow_down)
    SimulatedStore.resume(context.store)
    await_all_on(context, ["k"], [b])
  end

  test "init failed on every target: a receiver starts the server when that has passed", %{a: a, b: b} = context do
    start_handoff(context, a, leaving(context, timeout_ms: 600_000))
    # The receiver tries again until the server starts.
    start_handoff(context, b, unswept(context, max_attempts: 100))
    await_heartbeats([a, b], context.sup)
    start_server(context, a, Troublesome, "k", %{count: 0})
    :ok = Troublesome.arm(b, "k", :init, :raise)
    assert {:ok, %{moved: 0, left: %{attempts_exhausted: 1}}} = drain(context, a)
    Troublesome.disarm(b, "k", :init)
    await_all_on(context, ["k"], [b])
  end

  test "a server that found no place is offered while the drain goes on", %{a: a, b: b} = context do
    start_handoff(context, a, leaving(context, timeout_ms: 600_000, max_attempts: 1))
    # The receiver tries again until the server starts.
    start_handoff(context, b, unswept(context, max_attempts: 100))
    await_heartbeats([a, b], context.sup)
    start_servers(context, a, 1)
    start_server(context, a, Troublesome, "k", %{count: 0})
    :ok = Troublesome.arm(b, "k", :init, :raise)
    # The other server's move begins when the first one is given up.
    draining = start_held(context, 1, fn -> drain(context, a) end)
    Troublesome.disarm(b, "k", :init)
    await_on(context, b, "k", b)
    SimulatedStore.resume(context.store)
    assert {:ok, %{moved: 1, left: %{attempts_exhausted: 1}, adopted_later: 1}} = await_task(draining)
    assert_all_run_on(context, ["k", "s1"], [b])
  end

  test "leftovers that are not permanent are started, too", %{a: a, b: b, c: c} = context do
    app = start_uneven(context, a, [b, c])
    keys = start_servers(context, a, 4, Counter, %{permanent: false})
    block_drain(context, a)
    stop_blocked(context, a, app)
    await_all_on(context, ["blocker" | keys], [b, c])
  end

  test "start_leftovers: false leaves the start to DurableServer, on either side", %{a: a, b: b, c: c} = context do
    app = start_handoff(context, a, leaving(context, start_leftovers: false))
    for node <- [b, c], do: start_handoff(context, node, unswept(context))
    await_heartbeats([a, b, c], context.sup)
    start_servers(context, a, 3)
    block_drain(context, a)
    listen_to_log(context, a)
    stopping = Task.async(fn -> stop_children(a, app) end)
    # The second lock is held by a drain that hangs at its deadline.
    assert_receive {:log, ^a, _level, event, metadata} when event in [:drain_ended, :drain_failed], 30_000
    with %{report: report} <- metadata, do: assert(%{moved: 0, adopted_later: 0} = report)
    for node <- [b, c], do: assert(held(context, node) == %{})
    unblock(a)
    :ok = await_task(stopping)
    assert placement(context, [b, c]) |> Map.delete("blocker") == %{}
    for n <- 1..3, do: assert(stored(context, "s#{n}").meta.status == :stopped_graceful)
  end

  test "only nodes that accept leftovers are chosen: none without this library, none with start_leftovers: false",
       %{a: a, b: b, c: c} = context do
    plain = start_node()
    app = start_handoff(context, a, leaving(context))
    start_handoff(context, b, unswept(context, start_leftovers: false))
    {handoff, without_library} = Keyword.pop!(unswept(context), :handoff_on_shutdown)
    without_library = Keyword.merge(context.opts, without_library)
    drainer = {DurableHandoff.Drainer, supervisor: context.sup, handoff_on_shutdown: handoff}
    {:ok, _app} = start_host(c, without_library ++ [after: [drainer]])
    {:ok, _app} = start_host(plain, without_library)
    await_heartbeats([a, b, c, plain], context.sup)
    keys = start_servers(context, a, 6)
    block_drain(context, a)
    stop_blocked(context, a, app)
    wait_until(fn -> keys -- Map.keys(placement(context, [b, c, plain])) == [] end)
    assert context |> placement([b, c, plain]) |> Map.take(keys) |> Map.values() |> Enum.uniq() == [c]
  end

  @tag guarantee: "Nothing runs twice"
  test "a discovery sweep starts the same server at the same time: one owner", %{a: a, b: b, c: c} = context do
    sweeps = [initial_discovery_delay_ms: 50] ++ backend(context, discovery_interval_ms: 50)
    sweeping = Keyword.merge(unswept(context), sweeps)
    app = start_handoff(context, a, leaving(context))
    for node <- [b, c], do: start_handoff(context, node, sweeping)
    await_heartbeats([a, b, c], context.sup)
    # Only one server: a sweep whose read is held does not continue, and might have begun when another server
    # was still up.
    keys = start_servers(context, a, 1)
    block_drain(context, a)
    # Three processes read the server's object: two sweeps and the receiver.
    hold_reads(context)
    stopping = Task.async(fn -> stop_children(a, app) end)
    wait_until(fn -> Enum.all?(keys, &(held_reads(context, &1) >= 3)) end)
    SimulatedStore.resume(context.store)
    unblock(a)
    :ok = await_task(stopping)
    await_all_on(context, ["blocker" | keys], [b, c])
    await_idle(context, [b, c])
    await_all_on(context, ["blocker" | keys], [b, c])
  end

  test "a server that a client has already started is left alone", %{a: a, b: b, c: c} = context do
    app = start_uneven(context, a, [b, c])
    [key] = start_servers(context, a, 1)
    await_on(context, b, key, a)
    block_drain(context, a)
    # Its final write waits until neither receiver can learn of its stop.
    SimulatedStore.pause(context.store, {:put, storage_key(context, key)})
    stopping = Task.async(fn -> stop_children(a, app) end)
    wait_until(fn -> Map.has_key?(Map.merge(held(context, b), held(context, c)), key) end)
    for node <- [b, c], do: :ok = call(node, :sys, :suspend, [receiver(context, node)])
    SimulatedStore.resume(context.store)
    unblock(a)
    :ok = await_task(stopping)
    await_none(context, b, key)
    assert {:ok, {pid, _meta}} = ensure_started(context, b, key)
    for node <- [b, c], do: :ok = call(node, :sys, :resume, [receiver(context, node)])
    await_idle(context, [b, c])
    assert whereis(context, b, key) == pid
    assert Map.has_key?(placement(context, [b, c]), key)
  end

  test "a server that is stopped for good or deleted after the drain is not started", %{b: b, c: c} = context do
    {a, context} = with_own_clock(context, [b, c])
    FrozenClock.freeze(a)
    app = start_uneven(context, a, [b, c])
    start_servers(context, a, 3)
    block_drain(context, a)
    assert {:ok, %{left: %{deadline: 4}}} = drain_to_deadline(context, a)
    wait_until(fn -> map_size(Map.merge(held(context, b), held(context, c))) == 4 end)
    unblock(a)
    hold_reads(context)
    :ok = call(a, Host, :terminate_child_permanent, [context.sup, "s1"])
    :ok = call(a, Host, :terminate_child, [context.sup, "s2"])
    wait_until(fn -> held_reads(context, "s1") > 0 and held_reads(context, "s2") > 0 end)
    :ok = SimulatedStore.delete_object(place(context), storage_key(context, "s2"))
    SimulatedStore.resume(context.store)
    wait_until(fn -> Map.keys(Map.merge(active(context, b), active(context, c))) == ["s3"] end)
    assert Map.keys(placement(context, [b, c])) -- ["blocker"] == []
    :ok = stop_children(a, app)
    await_idle(context, [b, c])
    assert Map.keys(placement(context, [b, c])) -- ["blocker"] == ["s3"]
  end

  test "the source is uncordoned: other nodes let go of what runs there, and a server that it was stopping starts again",
       %{b: b, c: c} = context do
    {a, context} = with_own_clock(context, [b, c])
    FrozenClock.freeze(a)
    start_uneven(context, a, [b, c])
    [one, two] = start_servers(context, a, 2, Counter, %{permanent: false})
    block_drain(context, a)
    listen_to_log(context, a)
    # The report may be made before the answers.
    assert {:ok, %{left: %{deadline: 3}, adopted_later: adopted}} = drain_to_deadline(context, a)
    assert adopted in [0, 3]
    await_log(a, :leftovers_offered, %{accepted: 3, left: 3})
    :ok = call(a, DurableHandoff, :uncordon, [context.sup])
    await_idle(context, [b, c])
    :ok = ask(whereis(context, a, one), {:stop, :normal})
    blocker = whereis(context, a, "blocker")
    unblock(a)
    await_down(blocker)
    wait_until(fn -> Enum.sort(Map.keys(placement(context))) == ["blocker", two] end)
    assert placement(context)[two] == a
  end

  test "the source is uncordoned before its offer is sent: other nodes let go of what runs there",
       %{b: b, c: c} = context do
    {a, context} = with_own_clock(context, [b, c])
    FrozenClock.freeze(a)
    start_uneven(context, a, [b, c])
    [one] = start_servers(context, a, 1, Counter, %{permanent: false})
    block_drain(context, a)
    listen_to_log(context, a)
    # The offer waits for the first answer of a receiver, and the drain does not wait for the offer.
    for node <- [b, c], do: :ok = call(node, :sys, :suspend, [receiver(context, node)])
    assert {:ok, %{left: %{deadline: 2}, adopted_later: 0}} = drain_to_deadline(context, a)
    :ok = call(a, DurableHandoff, :uncordon, [context.sup])
    for node <- [b, c], do: :ok = call(node, :sys, :resume, [receiver(context, node)])
    await_log(a, :leftovers_offered, %{left: 2})
    await_idle(context, [b, c])
    assert await_on(context, b, one, a) == whereis(context, a, one)
    unblock(a)
  end

  @tag guarantee: "Nothing runs twice"
  test "drain/2 and a later shutdown offer the same servers: each starts once", %{b: b, c: c} = context do
    {a, context} = with_own_clock(context, [b, c])
    FrozenClock.freeze(a)
    app = start_uneven(context, a, [b, c])
    keys = start_servers(context, a, 5)
    block_drain(context, a)
    assert {:ok, %{left: %{deadline: 6}}} = drain_to_deadline(context, a)
    stop_blocked(context, a, app)
    await_all_on(context, ["blocker" | keys], [b, c])
    await_idle(context, [b, c])
  end

  test "a cordoned receiver leaves its leftovers to the others, and accepts some again when uncordoned",
       %{b: b, c: c} = context do
    {a, context} = with_own_clock(context, [b, c], patient: true)
    FrozenClock.freeze(a)
    app = start_uneven(context, a, [b, c])
    keys = start_servers(context, a, 5)
    # One for each drain: the server that blocks the first one is stopping then, so it is last in the second one.
    for key <- ["blocker", "another"], do: block_drain(context, a, key)
    assert {:ok, %{left: %{deadline: 7}}} = drain_to_deadline(context, a)
    wait_until(fn -> active(context, b) != %{} and active(context, c) != %{} end)
    :ok = call(b, DurableHandoff, :cordon, [context.sup])
    wait_until(fn -> held(context, b) == %{} and map_size(active(context, c)) == 7 end)

    :ok = call(b, DurableHandoff, :uncordon, [context.sup])
    wait_until(fn -> b in eligible(context, a) end)
    assert {:ok, %{left: %{deadline: 7}}} = drain_to_deadline(context, a, 2)
    wait_until(fn -> active(context, b) != %{} end)
    for key <- ["blocker", "another"], do: unblock(a, key)
    :ok = stop_children(a, app)
    await_all_on(context, ["blocker", "another" | keys], [b, c])
  end

  test "telemetry has the accepted servers and the result for each", %{c: c} = context do
    # Nodes for this test only, because they keep the :telemetry module that the test defines.
    [source, receiver] = start_nodes(2)
    context = %{context | nodes: [source, receiver]}
    app = start_uneven(context, source, [receiver])
    start_servers(context, source, 3)
    block_drain(context, source)
    for node <- [source, receiver], do: listen_to_telemetry(node)
    stop_blocked(context, source, app)
    {sup, target} = {context.sup, Atom.to_string(receiver)}

    assert_receive {:event, [:durable_handoff, :leftovers, :offer], %{left: 4, accepted: 4},
                    %{supervisor: ^sup, targets: %{^target => 4}}}

    assert_receive {:event, [:durable_handoff, :leftovers, :stop], %{started: started, running: running, dropped: 0},
                    %{supervisor: ^sup, source: ^source, dropped: none}}

    assert started + running == 4
    assert none == %{}
    assert c in Node.list()
  end

  # Stops the application, and releases the blocker when other nodes have accepted the leftovers.
  defp stop_blocked(context, node, app) do
    stopping = Task.async(fn -> stop_children(node, app) end)
    others = for other <- Node.list(), receiver?(context, other, node), do: other
    wait_until(fn -> Enum.any?(others, &(map_size(held(context, &1)) > 0)) end)
    unblock(node)
    :ok = await_task(stopping)
  end

  # The registry's events in the mailbox of a process.
  defp events(pid) do
    {:messages, messages} = call(node(pid), Process, :info, [pid, :messages])
    Enum.flat_map(messages, &DurableHandoff.Host.Registry.events/1)
  end

  # A node of an earlier test may end in between.
  defp receiver?(context, other, node) do
    other != node and receiver(context, other) != nil
  rescue
    ErlangError -> false
  end
end
