defmodule Handoff.ShutdownTest do
  @moduledoc """
  A supervision tree or a whole node is stopped: it drains first, and DurableServer's graceful shutdown does
  the rest.
  """

  use HandoffCase, nodes: 3

  test "stopping the supervisor moves its servers", %{a: a, b: b, c: c} = context do
    [app | _apps] = start_cluster(context)
    keys = start_servers(context, a, 20)
    :ok = stop_children(a, app)
    await_all_on(context, keys, [b, c])
  end

  test "a stopped supervisor leaves no process, name or table of this library", %{a: a} = context do
    tables = fn -> a |> call(:ets, :all, []) |> Enum.filter(&(is_atom(&1) and to_string(&1) =~ "#{context.sup}")) end
    names = fn -> a |> call(Process, :registered, []) |> Enum.filter(&(to_string(&1) =~ "#{context.sup}")) end
    [app | _apps] = start_cluster(context)
    start_servers(context, a, 3)
    assert :"#{context.sup}_handoff_status" in tables.()
    assert :"#{context.sup}_handoff_drainer" in names.()
    :ok = stop_children(a, app)
    wait_until(fn -> drain_processes(a) == [] end)
    wait_until(fn -> {tables.(), names.()} == {[], []} end)
  end

  test "SIGTERM moves the servers of the node", %{b: b} = context do
    leaving = start_node()
    context = %{context | nodes: [leaving, b]}
    start_cluster(context)
    keys = start_servers(context, leaving, 10)
    stop(leaving)
    await_all_on(context, keys, [b])
  end

  test "a Drainer in a supervision tree of the application does the same", %{a: a, b: b} = context do
    drainer = {DurableHandoff.Drainer, supervisor: context.sup, handoff_on_shutdown: [timeout_ms: 10_000]}
    {:ok, app} = start_host(a, context.opts ++ [after: [drainer]])
    {:ok, _app} = start_host(b, context.opts)
    await_heartbeats([a, b], context.sup)
    keys = start_servers(context, a, 10)
    :ok = stop_children(a, app)
    await_all_on(context, keys, [b])
  end

  test "handoff_on_shutdown: false: only DurableServer's graceful shutdown", %{a: a, b: b} = context do
    app = start_handoff(context, a, handoff_on_shutdown: false)
    start_handoff(context, b)
    await_heartbeats([a, b], context.sup)
    start_servers(context, a, 3)
    assert drain(context, a) == {:error, :no_drainer}
    :ok = stop_children(a, app)
    assert placement(context, [b]) == %{}
    for n <- 1..3, do: assert(stored(context, "s#{n}").meta.status == :stopped_graceful)
  end

  @tag guarantee: "Nothing is lost that a graceful shutdown would have kept"
  test "a single node: no server moves, and the graceful shutdown stores every state", %{a: a} = context do
    app = start_handoff(context, a)
    start_servers(context, a, 5, Counter, %{count: 3})
    :ok = stop_children(a, app)

    for n <- 1..5 do
      assert %{meta: %{status: :stopped_graceful, restart_attempt_node: nil}, state: %{"count" => 3}} =
               stored(context, "s#{n}")
    end
  end

  test "a shutdown after drain/2 drains only the servers that stayed", %{a: a, b: b} = context do
    context = %{context | nodes: [a, b]}
    app = start_handoff(context, a)
    keys = start_servers(context, a, 6)
    assert {:ok, %{moved: 0, left: %{no_target: 6}}} = drain(context, a, force: true)
    start_handoff(context, b)
    await_heartbeats([a, b], context.sup)
    assert {:ok, %{moved: 5, left: %{excluded: 1}}} = drain(context, a, eligible: &HandoffCase.not_s1/1)

    :ok = stop_children(a, app)
    await_all_on(context, keys, [b])
  end

  test "a shutdown during drain/2 waits for that drain, whose caller gets the report, and drains what its options left",
       %{a: a, b: b} = context do
    context = %{context | nodes: [a, b]}
    [app, _app_b] = start_cluster(context)
    keys = start_servers(context, a, 4)
    draining = start_held(context, 3, fn -> drain(context, a, eligible: &HandoffCase.not_s1/1) end)
    listen_to_telemetry(a)
    stopping = Task.async(fn -> stop_children(a, app) end)
    assert_receive {:event, [:durable_handoff, :shutdown, :start], _joined, _metadata}, 60_000
    SimulatedStore.resume(context.store)

    assert {:ok, %{moved: 3, left: %{excluded: 1}}} = await_task(draining)
    assert :ok = await_task(stopping)
    await_all_on(context, keys, [b])
  end

  test "drain/2 during a shutdown returns the shutdown's report", %{a: a, b: b} = context do
    context = %{context | nodes: [a, b]}
    [app, _app_b] = start_cluster(context)
    start_servers(context, a, 3)
    stopping = start_held(context, 3, fn -> stop_children(a, app) end)
    assert {:ok, %{state: :draining}} = status(context, a)
    draining = Task.async(fn -> drain(context, a) end)
    wait_until(fn -> drain_waiters(context, a) == 1 end)
    SimulatedStore.resume(context.store)

    assert {:ok, %{moved: 3}} = await_task(draining)
    assert :ok = await_task(stopping)
  end

  test "a drain/2 with a longer timeout ends in time for the shutdown", %{a: a, b: b} = context do
    context = %{context | nodes: [a, b]}
    [app, _app_b] = start_cluster(context, handoff_on_shutdown: [timeout_ms: 5_000])
    start_servers(context, a, 2)
    draining = start_held(context, 2, fn -> drain(context, a, timeout_ms: 600_000) end)
    [drain] = drain_processes(a, [DurableHandoff.Drain])
    {relay, 1} = Relay.start(a, {:erlang, :trace, [drain, true, [:receive]]})
    watch = OnTime.watch(a)

    # The reads stay held until the drain has ended.
    stopping = Task.async(fn -> stop_children(a, app) end)
    OnTime.assert_ended(watch, :shutdown, 5_000)
    # It was told before the limit. On a busy machine its report may come after it.
    assert_receive {^relay, {:trace, ^drain, :receive, {:cancel, {:shutdown, _deadline}}}}

    with {:ok, report} <- await_task(draining),
         do: assert(%{ended: :cancelled, moved: 0, left: %{cancelled: 2}} = report),
         else: (late -> assert(late == {:error, :overdue}))

    SimulatedStore.resume(context.store)
    assert :ok = await_task(stopping)
    wait_until(fn -> reservations(context) == [] end)
  end

  test "two supervisors in one VM: each drains its own servers", %{a: a, b: b, c: c} = context do
    other = another_supervisor(context)
    apps = for each <- [context, other], do: hd(start_cluster(each, name: each.sup))
    keys = for each <- [context, other], do: start_servers(each, a, 5)

    assert {:ok, %{supervisor: drained, moved: 5}} = drain(context, a)
    assert drained == context.sup
    assert placement(other) |> Map.values() |> Enum.uniq() == [a]
    assert {:ok, %{state: :idle}} = status(other, a)

    for app <- apps, do: :ok = stop_children(a, app)
    for {each, keys} <- Enum.zip([context, other], keys), do: await_all_on(each, keys, [b, c])
  end

  test "two supervisors stopped at the same time", %{a: a} = context do
    other = another_supervisor(context)
    apps = for each <- [context, other], do: hd(start_cluster(each, name: each.sup))
    keys = for each <- [context, other], do: start_servers(each, a, 10)
    apps |> Enum.map(&Task.async(fn -> stop_children(a, &1) end)) |> await_tasks()
    for {each, keys} <- Enum.zip([context, other], keys), do: await_all_on(each, keys, context.nodes -- [a])
  end

  @tag guarantee: "The node never waits longer than `timeout_ms`"
  test "a server that does not stop: the shutdown goes on at the limit, and clears its reservation later",
       %{a: a, b: b} = context do
    context = %{context | nodes: [a, b]}
    [app, _app_b] = start_cluster(context, handoff_on_shutdown: [timeout_ms: 3_000, attempt_timeout_ms: 300])
    stuck = start_server(context, a, Troublesome, "stuck", %{count: 0})
    Troublesome.arm(a, "stuck", :terminate, :hang)
    watch = OnTime.watch(a)
    stopping = Task.async(fn -> stop_children(a, app) end)

    # The graceful shutdown that follows waits for the server.
    OnTime.assert_ended(watch, :shutdown, 3_000)
    assert call(a, Process, :alive?, [stuck])
    Troublesome.disarm(a, "stuck", :terminate)
    assert :ok = await_task(stopping)
    wait_until(fn -> drain_processes(a) == [] end)
    assert reservations(context) == []
  end

  @tag guarantee: "The node never waits longer than `timeout_ms`"
  test "the drain's process or the Drainer hangs: the shutdown goes on at the limit", %{a: a} = context do
    listen_to_telemetry(a)

    for hanging <- [DurableHandoff.Drain, :drainer] do
      context = another_supervisor(context)
      [app | _apps] = start_cluster(context, name: context.sup, handoff_on_shutdown: [timeout_ms: 1_000])
      start_servers(context, a, 2)
      drainer = call(a, Process, :whereis, [:"#{context.sup}_handoff_drainer"])
      hold_reads(context)
      # The drain's own limit is far in the future; that of the shutdown counts.
      draining = Task.async(fn -> drain(context, a, timeout_ms: 120_000) end)
      await_held(context, 2)
      pid = if hanging == :drainer, do: drainer, else: hd(drain_processes(a, [hanging]))
      {relay, true} = Relay.start(a, {:erlang, :suspend_process, [pid]})
      watch = OnTime.watch(a)
      stopping = Task.async(fn -> stop_children(a, app) end)

      OnTime.assert_ended(watch, :shutdown, 1_000)
      sup = context.sup
      assert_receive {:event, [:durable_handoff, :fallback], _count, %{supervisor: ^sup, reason: reason}}
      assert {hanging, reason} == {hanging, :overdue}
      Process.exit(relay, :kill)
      SimulatedStore.resume(context.store)
      assert {:error, _overdue_or_no_drainer} = await_task(draining)
      assert :ok = await_task(stopping)
      wait_until(fn -> drain_processes(a) == [] end)
    end
  end
end
