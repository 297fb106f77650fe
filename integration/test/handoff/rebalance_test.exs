defmodule Handoff.RebalanceTest do
  @moduledoc """
  A node moves only the servers above its share, not during deploys and drains. A drain takes precedence.
  """

  use HandoffCase, nodes: 3, patient: true

  # With `after_ms: 0` no server counts as having just arrived.
  @at_once [after_ms: 1, min_servers: 0]

  test "only the servers above the share move, lowest priority first, to nodes below theirs",
       %{a: a, b: b, c: c} = context do
    start_cluster(context, handoff_on_shutdown: [modules: %{Troublesome => [priority: 10]}])
    start_servers(context, a, 20)
    for n <- 1..10, do: start_server(context, a, Troublesome, "important#{n}", %{count: 0})

    assert {:ok, %{moves: moves, balance: balance}} = rebalance(context, a, [dry_run: true] ++ @at_once)
    assert %{excess: 20, idle: nil} = balance
    assert length(moves) == 20
    assert counts(context) == %{a => 30}

    assert {:ok, report} = rebalance(context, a, @at_once)
    assert %{goal: :rebalance, total: 30, moved: 20, left: %{kept: 10}, balance: balance} = report
    assert %{excess: 20, idle: nil, after: after_each} = balance
    assert Enum.map(after_each, & &1.servers) == [10, 10, 10]
    assert counts(context) == %{a => 10, b => 10, c => 10}
    for {"important" <> _n, node} <- placement(context), do: assert(node == a)
    assert reservations(context) == []
    assert {:ok, %{state: :idle, marked: false, rebalance: %{state: :ended, report: ^report}}} = status(context, a)

    # One round is enough, and the others have no excess.
    for node <- context.nodes do
      assert {:ok, plan} = rebalance(context, node, [dry_run: true] ++ @at_once)
      assert %{moves: [], balance: %{idle: :within_tolerance}} = plan
    end
  end

  test "states move with the servers, and callers wait", %{a: a, b: b} = context do
    start_cluster(context)
    keys = start_unsynced(context, a, 9)
    hold_reads(context)
    moving = Task.async(fn -> rebalance(context, a, @at_once) end)
    wait_until(fn -> SimulatedStore.paused(context.store) != [] end)
    [{:get, held} | _more] = SimulatedStore.paused(context.store)
    key = String.replace_prefix(held, context.opts[:prefix], "")
    calling = Task.async(fn -> call(b, DurableHandoff, :call, [context.sup, key, :get, [timeout: 30_000]]) end)
    wait_until(fn -> match?({:ok, %{rebalance: %{state: :running, progress: %{excess: 6}}}}, status(context, a)) end)
    SimulatedStore.resume(context.store)
    assert {:ok, %{moved: 6}} = await_task(moving)
    assert {:ok, 1} = await_task(calling)
    assert_counts(context, keys, 1)
  end

  test "servers that arrived recently, or that the policy excludes, stay", %{a: a} = context do
    start_cluster(context, handoff_on_shutdown: [modules: %{Troublesome => false}])
    start_servers(context, a, 6)
    for n <- 1..3, do: start_server(context, a, Troublesome, "kept#{n}", %{count: 0})
    assert {:ok, %{moved: 0, left: left}} = rebalance(context, a, after_ms: 600_000, min_servers: 0)
    assert left == %{moved_lately: 6, excluded: 3}
    assert {:ok, %{moved: 6, left: %{excluded: 3}}} = rebalance(context, a, @at_once)
  end

  test "a server would wait in a callback for a rebalance that may move it: refused", %{a: a} = context do
    start_cluster(context)
    start_servers(context, a, 3)
    rebalance = &{:apply, DurableHandoff, :rebalance, [context.sup, &1 ++ @at_once]}
    server = whereis(context, a, "s1")
    assert {:error, :calling_self} = GenServer.call(server, rebalance.([]), 60_000)
    assert {:ok, %{moves: _}} = GenServer.call(server, rebalance.(dry_run: true), 60_000)
    assert {:ok, :started} = GenServer.call(server, rebalance.(await: false), 60_000)
  end

  test "a cordoned node neither gets nor gives servers", %{a: a, b: b} = context do
    start_cluster(context)
    start_servers(context, a, 9)
    start_server(context, b, Counter, "b")
    :ok = call(b, DurableHandoff, :cordon, [context.sup])
    wait_until(fn -> b not in eligible(context, a) end)
    assert {:ok, %{moved: 0, balance: %{idle: :node_draining}}} = rebalance(context, a, @at_once)
    assert {:error, :cordoned} = rebalance(context, b, @at_once)
    :ok = call(b, DurableHandoff, :uncordon, [context.sup])
    wait_until(fn -> match?({:ok, %{balance: %{idle: nil}}}, rebalance(context, a, [dry_run: true] ++ @at_once)) end)
    assert {:ok, %{moved: moved}} = rebalance(context, a, @at_once)
    assert moved in 5..6
  end

  test "a node that is cordoned while it gives servers gives no more", %{a: a, b: b, c: c} = context do
    moving = first_move_held(context)
    :ok = call(a, DurableHandoff, :cordon, [context.sup])
    listen_to_log(context, a)
    # It looks at its mark after each of these lines.
    for _looked <- 1..2, do: await_log(a, :drain_progress)
    await_heard(context, [b, c])
    SimulatedStore.resume(context.store)
    assert {:ok, %{moved: 1, ended: :done, balance: %{idle: :node_draining}}} = await_task(moving)
    assert {:error, :cordoned} = rebalance(context, a, @at_once)

    # Its heartbeat still says that it is cordoned, and nothing waits for the next one.
    :ok = call(a, DurableHandoff, :uncordon, [context.sup])
    assert {:ok, %{moves: [_ | _], balance: %{idle: nil}}} = rebalance(context, a, [dry_run: true] ++ @at_once)
  end

  test "an empty node that is cordoned while servers move there ends the rebalance", %{a: a, b: b, c: c} = context do
    moving = first_move_held(context)
    :ok = call(c, DurableHandoff, :cordon, [context.sup])
    wait_until(fn -> c not in eligible(context, a) end)
    listen_to_log(context, a)
    # It looks at the other nodes after each of these lines.
    for _looked <- 1..2, do: await_log(a, :drain_progress)
    await_heard(context, [b, c])
    SimulatedStore.resume(context.store)
    assert {:ok, %{moved: 1, ended: :done, balance: %{idle: :node_draining}}} = await_task(moving)
  end

  test "a node that accepts no servers and has none is left out of the shares", %{a: a, b: b, c: c} = context do
    start_cluster(context)
    start_servers(context, a, 8)
    :ok = call(c, DurableHandoff, :cordon, [context.sup])
    wait_until(fn -> eligible(context, a) == [b] end)
    assert {:ok, %{moved: 4, balance: %{excess: 4}}} = rebalance(context, a, @at_once)
    assert counts(context) == %{a => 4, b => 4}
  end

  test "a node whose supervisor has the same name and another prefix neither counts nor blocks a rebalance",
       %{a: a, b: b, c: c} = context do
    elsewhere = [prefix: "elsewhere/", heartbeat_interval_ms: 200]
    options = [handoff_on_shutdown: [generation: "1"]]
    for node <- [a, b], do: start_handoff(context, node, options)
    start_handoff(context, c, elsewhere ++ [handoff_on_shutdown: [generation: "2"]])
    await_heartbeats(context.nodes, context.sup)
    start_servers(context, a, 8)
    start_server(context, c, Counter, "other")
    wait_until(fn -> match?(%{"durable_handoff" => %{"servers" => 1}}, elem(heartbeat_row(context, a, c), 6)) end)
    assert {:ok, %{moved: 4, balance: %{idle: nil, excess: 4}}} = rebalance(context, a, @at_once)
    assert counts(context) == %{a => 4, b => 4, c => 1}
  end

  test "with nothing to move it does not measure the store, and logs no estimate", %{a: a} = context do
    start_cluster(context)
    start_servers(context, a, 70)
    listen_to_log(context, a)
    test = self()
    # Holds nothing. The store is measured with reads of an object that does not exist.
    objects = SimulatedStore.keys(context.store)

    SimulatedStore.pause(context.store, fn op, key ->
      if op == :get and key not in objects, do: send(test, :read)
      false
    end)

    assert {:ok, %{moved: 0, balance: %{idle: :too_few_servers}}} = rebalance(context, a, after_ms: 1, min_servers: 500)
    refute_received :read
    refute_received {:log, ^a, _level, :estimate, _metadata}
  end

  test "nothing moves while nodes run different releases", %{a: a, b: b, c: c} = context do
    for {node, release} <- [{a, "1"}, {b, "1"}, {c, "2"}],
        do: start_handoff(context, node, handoff_on_shutdown: [generation: release])

    await_heartbeats(context.nodes, context.sup)
    start_servers(context, a, 9)
    assert {:ok, %{moved: 0, balance: %{idle: :deploy_in_progress}}} = rebalance(context, a, @at_once)
  end

  test "no more servers move to a node than it has room for", %{a: a, b: b, c: c} = context do
    start_handoff(context, a)
    # By its share it would get 7.
    start_handoff(context, b, max_children: %{Counter => 3})
    start_handoff(context, c)
    await_heartbeats(context.nodes, context.sup)
    start_servers(context, a, 21)
    # DurableServer would refuse a fourth one.
    assert {:ok, %{failures: 0, balance: %{idle: nil}}} = rebalance(context, a, @at_once)
    assert %{^b => 3} = counts(context)
  end

  test "max_concurrency limits its moves", %{a: a} = context do
    start_cluster(context)
    start_servers(context, a, 9)
    moving = start_held(context, 2, fn -> rebalance(context, a, [max_concurrency: 2] ++ @at_once) end)
    # The rebalance shows this when it has started both.
    wait_until(fn -> match?({:ok, %{rebalance: %{progress: %{in_flight: 2}}}}, status(context, a)) end)
    SimulatedStore.resume(context.store)
    assert {:ok, %{moved: 6, concurrency: %{highest: 2}}} = await_task(moving)
  end

  test "init fails on the only target: the servers that were stopped are started again", %{a: a, b: b} = context do
    context = %{context | nodes: [a, b]}
    # Nothing else starts them.
    start_cluster(context, no_sweeps(context) ++ [handoff_on_shutdown: [start_leftovers: false]])
    keys = for n <- 1..4, do: "t#{n}"

    for key <- keys do
      start_server(context, a, Troublesome, key, %{count: 0})
      :ok = Troublesome.arm(b, key, :init, :raise)
    end

    assert {:ok, %{moved: 0, failures: 2}} = rebalance(context, a, @at_once)
    wait_until(fn -> Enum.sort(Map.keys(placement(context))) == keys end)
    wait_until(fn -> drain_processes(a) == [] end)
    assert reservations(context) == []
  end

  test "init fails on the only target: other nodes hold nothing of what is started again here",
       %{a: a, b: b} = context do
    context = %{context | nodes: [a, b]}
    start_cluster(context, no_sweeps(context))

    for n <- 1..4 do
      start_server(context, a, Troublesome, "t#{n}", %{count: 0})
      :ok = Troublesome.arm(b, "t#{n}", :init, :raise)
    end

    assert {:ok, %{moved: 0, failures: 2, adopted_later: 0}} = rebalance(context, a, @at_once)
    assert call(b, DurableHandoff.Leftovers, :held, [context.sup]) == %{}
    wait_until(fn -> counts(context) == %{a => 4} end)
    wait_until(fn -> drain_processes(a) == [] end)
  end

  test "cancel: moves in flight end, the other servers stay, and the node accepts servers",
       %{a: a, b: b, c: c} = context do
    start_cluster(context)
    start_known(context, a, 9, [b, c])
    listen_to_log(context, a)
    moving = start_held(context, 1, fn -> rebalance(context, a, [max_concurrency: 1] ++ @at_once) end)
    assert {:ok, :joined} = rebalance(context, a, [await: false] ++ @at_once)
    assert :ok = call(a, DurableHandoff, :cancel, [context.sup])
    await_heard(context, [b, c])
    SimulatedStore.resume(context.store)
    assert {:ok, %{ended: :cancelled, moved: 1} = report} = await_task(moving)
    assert {:warning, %{report: ^report}} = await_log(a, :rebalance_ended)
    assert {:ok, %{marked: false}} = status(context, a)
    assert call(a, DurableHandoff, :cancel, [context.sup]) == {:error, :not_draining}
    key = moved_key(context, a)
    await_moved(context, b, key, a)
    assert {:ok, %{to: ^a}} = call(b, DurableHandoff, :move, [context.sup, key, [to: a]])
  end

  test "a drain ends a rebalance and starts; callers of each get their own report", %{a: a, b: b, c: c} = context do
    start_cluster(context)
    keys = start_known(context, a, 9, [b, c])
    moving = start_held(context, 1, fn -> rebalance(context, a, [max_concurrency: 1] ++ @at_once) end)
    draining = Task.async(fn -> drain(context, a) end)
    wait_until(fn -> drain_waiters(context, a) == 1 end)
    assert_settles(moving, context)
    assert {:ok, %{goal: :drain, ended: :done, moved: moved}} = await_task(draining)
    assert moved in [8, 9]
    await_all_on(context, keys, [b, c])
    assert {:error, :cordoned} = rebalance(context, a, @at_once)
  end

  test "a drain that waits for a rebalance shows in status at once, can be joined, and is ended by cancel",
       %{a: a, b: b, c: c} = context do
    start_cluster(context)
    start_known(context, a, 9, [b, c])
    moving = start_held(context, 1, fn -> rebalance(context, a, [max_concurrency: 1] ++ @at_once) end)
    assert {:ok, :started} = drain(context, a, await: false, max_concurrency: 1)
    assert {:ok, %{state: :draining, waiting: 0}} = status(context, a)
    assert {:ok, :joined} = drain(context, a, await: false)
    assert {:error, :draining} = rebalance(context, a, @at_once)
    draining = Task.async(fn -> drain(context, a) end)
    wait_until(fn -> drain_waiters(context, a) == 1 end)

    assert :ok = call(a, DurableHandoff, :cancel, [context.sup])
    assert_settles(moving, context)
    assert {:ok, %{goal: :drain, ended: :cancelled, moved: moved}} = await_task(draining)
    assert moved <= 1
    assert {:ok, %{state: :cancelled, cordoned: true}} = status(context, a)
    # The next one is not cancelled.
    assert {:ok, %{ended: :done}} = drain(context, a)
    wait_until(fn -> not is_map_key(counts(context), a) end)
    assert context |> counts() |> Map.keys() |> Enum.sort() == Enum.sort([b, c])
  end

  test "cancel while a shutdown waits for a rebalance: no drain begins, and the servers are offered",
       %{a: a, b: b, c: c} = context do
    [app | _apps] = start_cluster(context)
    keys = start_known(context, a, 9, [b, c])
    listen_to_log(context, a)
    listen_to_telemetry(a)
    moving = start_held(context, 1, fn -> rebalance(context, a, [max_concurrency: 1] ++ @at_once) end)
    stopping = Task.async(fn -> stop_children(a, app) end)
    assert_receive {:event, [:durable_handoff, :shutdown, :start], _measured, _metadata}, 30_000
    assert :ok = call(a, DurableHandoff, :cancel, [context.sup])
    assert_settles(moving, context)
    assert {_level, %{report: %{ended: :cancelled}}} = await_log(a, :drain_ended)
    assert :ok = await_task(stopping)
    await_all_on(context, keys, [b, c])
  end

  test "a shutdown ends a rebalance at once, even if a move hangs, and drains", %{a: a, b: b, c: c} = context do
    [app | _apps] = start_cluster(context)
    keys = start_servers(context, a, 9)
    listen_to_log(context, a)
    moving = start_held(context, 1, fn -> rebalance(context, a, [max_concurrency: 1] ++ @at_once) end)
    stopping = Task.async(fn -> stop_children(a, app) end)
    # The hanging move does not delay the drain.
    assert {:error, :overdue} = await_task(moving)
    assert {:warning, %{reason: :overdue}} = await_log(a, :rebalance_failed)
    SimulatedStore.resume(context.store)
    assert :ok = await_task(stopping)
    await_all_on(context, keys, [b, c])
  end

  test "a shutdown with three seconds left ends a rebalance whose move hangs in time for a drain", %{a: a} = context do
    [app | _apps] = start_cluster(context, handoff_on_shutdown: [timeout_ms: 3_000])
    start_servers(context, a, 9)
    options = [max_concurrency: 1, timeout_ms: 60_000] ++ @at_once
    moving = start_held(context, 1, fn -> rebalance(context, a, options) end)
    listen_to_log(context, a)
    assert :ok = stop_children(a, app)
    assert {:error, :overdue} = await_task(moving)
    # The store still hangs, so the drain may also end too late.
    assert_received {:log, ^a, _level, event, _metadata} when event in [:drain_ended, :drain_failed]
  end

  test "prepare_stop/0 ends a rebalance", %{b: b, c: c} = context do
    doomed = start_node()
    {:ok, _apps} = call(doomed, Application, :ensure_all_started, [:durable_handoff])
    context = %{context | nodes: [doomed, b, c]}
    start_cluster(context)
    start_known(context, doomed, 9, [b, c])
    moving = start_held(context, 1, fn -> rebalance(context, doomed, [max_concurrency: 1] ++ @at_once) end)
    assert :ok = call(doomed, DurableHandoff, :prepare_stop, [])
    assert_settles(moving, context)
    assert {:error, :stopping} = rebalance(context, doomed, @at_once)
  end

  test "between SIGTERM and the mark no rebalance starts, and uncordon has no effect", %{a: a} = context do
    doomed = start_node()
    context = %{context | nodes: [a, doomed]}
    start_cluster(context)
    start_servers(context, doomed, 4)
    :ok = call(doomed, DurableHandoff.Stopping.Moment, :note, [])
    assert {:error, :stopping} = rebalance(context, doomed, @at_once)
    assert {:error, :stopping} = rebalance(context, doomed, [await: false] ++ @at_once)
    assert {:error, :stopping} = call(doomed, DurableHandoff, :uncordon, [context.sup])
    assert {:error, :draining} = call(a, DurableHandoff, :move, [context.sup, "s1", []])
    assert counts(context) == %{doomed => 4}
  end

  describe "the option" do
    test "a node that joins gets its share once the cluster has been stable for after_ms",
         %{a: a, b: b, c: c} = context do
      options = [handoff_on_shutdown: [rebalance: [after_ms: 1_500, min_servers: 0]], heartbeat_interval_ms: 500]
      for node <- [a, b], do: start_handoff(context, node, options)
      await_heartbeats([a, b], context.sup)
      keys = start_servers(context, a, 12)
      for n <- 1..12, do: start_server(context, b, Counter, "b#{n}")
      start_handoff(context, c, options)

      # The nodes are asked one after the other, so a moving server may be counted on both. Each node sees the
      # moves of the other at another time, so one server more or less may move, within the tolerance.
      wait_until(fn -> Enum.all?([a, b], &match?({:ok, %{rebalance: %{state: :ended}}}, status(context, &1))) end)

      wait_until(fn ->
        running = for node <- [a, b, c], do: running_on(context, node)
        Enum.sum(running) == 24 and Enum.all?(running, &(&1 in 7..9))
      end)

      placement = placement(context)
      assert keys -- Map.keys(placement) == []
      assert reservations(context) == []
    end

    test "off by default: nothing watches for a rebalance", %{a: a} = context do
      start_cluster(context)
      assert drain_processes(a, [DurableHandoff.Rebalance.Watch]) == []
      assert {:ok, %{rebalance: %{state: :idle, report: nil}}} = status(context, a)
      assert call(a, DurableHandoff.Options, :new!, [true]).rebalance == false
    end
  end

  defp rebalance(context, node, options), do: call(node, DurableHandoff, :rebalance, [context.sup, options])

  # Three nodes, and a rebalance of the first one's 15 servers, one at a time. It waits at the first.
  defp first_move_held(%{nodes: [a, b, c]} = context) do
    start_cluster(context)
    start_known(context, a, 15, [b, c])
    moving = start_held(context, 1, fn -> rebalance(context, a, [max_concurrency: 1] ++ @at_once) end)
    wait_until(fn -> match?({:ok, %{rebalance: %{progress: %{excess: 10}}}}, status(context, a)) end)
    moving
  end

  defp counts(context), do: context |> placement() |> Map.values() |> Enum.frequencies()

  # The hanging move settles when the store answers again; after a second the drain no longer waits for it. It is not
  # repeated for a target that has not received the stop.
  defp assert_settles(moving, %{nodes: [_source | targets]} = context) do
    await_heard(context, targets)
    SimulatedStore.resume(context.store)

    case await_task(moving) do
      {:ok, report} -> assert %{goal: :rebalance, ended: :cancelled, moved: 1} = report
      let_go -> assert let_go == {:error, :overdue}
    end
  end

  defp moved_key(context, from),
    do: Enum.find_value(placement(context), fn {key, node} -> if node != from, do: key end)
end
