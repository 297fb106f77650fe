defmodule Handoff.SilentTargetTest do
  @moduledoc "A target is suspended (SIGSTOP): it keeps its connections but does not answer."

  use LeftoversCase, nodes: 2

  alias DurableHandoff.Drain
  alias DurableHandoff.Host.{Count, Mark}

  # DurableServer would wait longer for such a target than any drain here.
  @endless [placement_erpc_timeout_cross_region_ms: 600_000, placement_erpc_timeout_same_region_ms: 600_000]

  setup context do
    silent = start_node()
    os_pid = call(silent, System, :pid, [])
    on_exit(fn -> System.cmd("kill", ["-CONT", os_pid], stderr_to_stdout: true) end)
    {:ok, silent: silent, os_pid: os_pid, nodes: context.nodes ++ [silent]}
  end

  test "suspended before the drain: no server is stopped for it", %{a: a, b: b} = context do
    start_cluster(context, @endless)
    keys = start_servers(context, a, 8)
    suspend(context)

    assert {:ok, %{moved: 8, targets: targets}} = drain(context, a, timeout_ms: 100_000)
    assert targets == %{Atom.to_string(b) => 8}
    resume(context)
    assert_all_run_on(context, keys, [b])
  end

  for {what, function, options} <- [
        {"a plan", :plan, []},
        {"a dry run of a rebalance", :rebalance, [dry_run: true, after_ms: 0, min_servers: 0]}
      ] do
    test "suspended when #{what} asks it, and not when it is asked again: it is a target",
         %{silent: silent} = context do
      asks = &call(&1, DurableHandoff, unquote(function), [context.sup, unquote(options)], :infinity)
      assert {:ok, %{targets: targets}} = await_task(asked_twice(context, asks))
      assert Map.keys(targets) == [Atom.to_string(silent)]
    end
  end

  test "suspended when a move asks it, and not when it is asked again: the server moves there",
       %{silent: silent} = context do
    moves = &call(&1, DurableHandoff, :move, [context.sup, "s1", [to: silent]], :infinity)
    moving = asked_twice(context, fn source -> hold_reads(context) == :ok and moves.(source) end)
    wait_until(fn -> SimulatedStore.paused(context.store) != [] or not Process.alive?(moving.pid) end)
    await_heard(context, silent)
    SimulatedStore.resume(context.store)
    assert {:ok, %{to: ^silent}} = await_task(moving)
  end

  test "suspended when a move asks it, and answers later that it takes no servers: the error says so",
       %{silent: silent} = context do
    {source, context} = with_own_clock(context, [silent])
    # Its heartbeats do not say it.
    start_cluster(context, heartbeat_interval_ms: 600_000, heartbeat_staleness_threshold_ms: 1_800_000)
    start_known(context, source, 1, silent)
    {:ok, :cordoned} = call(silent, Mark, :cordon, [context.sup])
    suspend(context)
    FrozenClock.freeze(source)
    moves = [context.sup, "s1", [to: silent, timeout_ms: 600_000]]
    moving = Task.async(fn -> call(source, DurableHandoff, :move, moves, :infinity) end)
    wait_until(fn -> drain_processes(source, [Drain]) != [] end)
    wait_until(fn -> FrozenClock.advance(source, 100) == :ok and drain_processes(source, [Drain]) == [] end)
    await_asked_twice(source, moving)
    resume(context)
    assert {:error, {:not_moved, %{reason: :draining, runs_on: ^source}}} = await_task(moving)
  end

  test "the doctor names it", %{a: a, silent: silent} = context do
    start_cluster(context)
    suspend(context)
    findings = call(a, DurableHandoff.Doctor, :run, [[supervisors: [context.sup]]])
    warnings = for %{check: :cluster, state: :warning, text: text} <- findings, do: text
    assert Enum.any?(warnings, &(&1 =~ "do not answer" and &1 =~ Atom.to_string(silent)))
  end

  @tag guarantee: "Nothing runs twice"
  test "suspended between stop and start: the servers start on another node", %{a: a, b: b, silent: silent} = context do
    for node <- [a, silent], do: start_handoff(context, node, @endless)
    await_heartbeats([a, silent], context.sup)
    keys = start_servers(context, a, 4)
    options = [timeout_ms: 100_000, concurrency: :fixed, max_concurrency: 4]
    draining = start_held(context, 4, fn -> drain(context, a, options) end)
    start_handoff(context, b, @endless)
    await_heartbeats([a, b], context.sup)
    suspend(context)
    SimulatedStore.resume(context.store)

    assert {:ok, %{total: 4, moved: 4, targets: targets}} = await_task(draining)
    assert targets == %{Atom.to_string(b) => 4}
    resume(context)
    assert_all_run_on(context, keys, [b])
    assert reservations(context) == []
  end

  test "suspended when it has claimed servers: the drain ends, and they start elsewhere when its heartbeats are old",
       %{a: a, b: b, silent: silent} = context do
    {draining, keys} = drain_to_silent(context)
    listen_to_log(context, a)
    suspend(context)
    # The claims are stored, but their answers do not arrive.
    SimulatedStore.resume(context.store)

    assert {:ok, %{ended: :done, left: %{lost_race: 4}, retried: 0}} = await_task(draining)
    assert {:warning, %{nodes: [name]}} = await_log(a, :nodes_silent)
    assert name == Atom.to_string(silent)
    await_all_on(context, keys, [b])
    resume(context)
  end

  @tag guarantee: "Nothing runs twice"
  test "suspended when it has registered servers: the drain ends, and they go on there", context do
    %{a: a, b: b, silent: silent} = context
    {draining, keys} = drain_to_silent(context)
    for _key <- keys, do: SimulatedStore.step(context.store, &write?/2)
    for key <- keys, do: await_on(context, a, key, silent)
    await_writes(context, 4)
    suspend(context)
    SimulatedStore.resume(context.store)

    assert {:ok, %{ended: :done, left: %{lost_race: 4}, retried: 0}} = await_task(draining)
    wait_until(fn -> Enum.sort(Map.keys(held(context, b))) == keys end)
    resume(context)
    await_idle(context, [b])
    # Whatever the drain sent them is handled before this call.
    for key <- keys, do: assert(ask(await_on(context, silent, key, silent), :get) == 0)
    assert_all_run_on(context, keys, [silent])
  end

  @tag guarantee: "The node never waits longer than `timeout_ms`"
  test "suspended, and the only node that could take what a shutdown leaves: the shutdown goes on at the limit",
       %{a: a, silent: silent} = context do
    options = [handoff_on_shutdown: [timeout_ms: 3_000]] ++ @endless
    [app, _app] = for node <- [a, silent], do: start_handoff(context, node, options)
    await_heartbeats([a, silent], context.sup)
    keys = start_unsynced(context, a, 4)
    suspend(context)
    watch = OnTime.watch(a)
    stopping = Task.async(fn -> stop_children(a, app) end)

    OnTime.assert_ended(watch, :shutdown, 3_000)
    assert await_task(stopping) == :ok
    for key <- keys, do: assert({key, count_stored(context, key)} == {key, 1})
    for key <- keys, do: assert(stored(context, key).meta.status == :stopped_graceful)
    resume(context)
  end

  # Starts `work` on a node whose only neighbour is suspended until it has been asked twice. Returns the task.
  defp asked_twice(%{silent: silent} = context, work) do
    # In the stopped time the node does not stop asking.
    {source, context} = with_own_clock(context, [silent])
    start_cluster(context)
    start_known(context, source, 4, silent)
    FrozenClock.freeze(source)
    suspend(context)
    asking = Task.async(fn -> work.(source) end)
    await_asked_twice(source, asking)
    resume(context)
    asking
  end

  # Or the end of the task that asks.
  defp await_asked_twice(source, asking) do
    ask = {Count, :ask_each, 4}
    1 = call(source, :erlang, :trace_pattern, [ask, true, [:call_count]])

    asked? = fn ->
      match?({:call_count, count} when count >= 2, call(source, :erlang, :trace_info, [ask, :call_count]))
    end

    wait_until(fn -> asked?.() or not Process.alive?(asking.pid) end)
  end

  # Drains four servers, and returns when the silent node is about to write its claims.
  defp drain_to_silent(%{a: a, b: b, silent: silent} = context) do
    # DurableServer stops waiting for a start after five seconds. The attempt then waits itself.
    drain = [timeout_ms: 100_000, attempt_timeout_ms: 100_000, max_concurrency: 4, concurrency: :fixed]
    options = unswept(context, drain) ++ @endless
    for node <- [a, silent], do: start_handoff(context, node, options)
    await_heartbeats([a, silent], context.sup)
    keys = start_known(context, a, 4, silent)
    draining = start_held(context, 4, fn -> drain(context, a) end)
    await_heard(context, silent)
    SimulatedStore.pause(context.store, &write?/2)
    for _key <- keys, do: SimulatedStore.step(context.store, fn op, _key -> op == :get end)
    await_writes(context, 4)
    # It soon takes the heartbeats of a silent node for too old.
    start_handoff(context, b, options ++ [heartbeat_interval_ms: 1_000, heartbeat_staleness_threshold_ms: 5_000])
    await_heartbeats([a, b, silent], context.sup)
    {draining, keys}
  end

  defp await_writes(context, count),
    do: wait_until(fn -> Enum.count(SimulatedStore.paused(context.store), fn {op, _key} -> op == :put end) == count end)

  # Of a server: their keys end in s1, s2, ...
  defp write?(op, storage_key), do: op == :put and storage_key =~ ~r"/s\d$"

  defp suspend(%{os_pid: os_pid}) do
    {_output, 0} = System.cmd("kill", ["-STOP", os_pid])
    wait_until(fn -> File.read!("/proc/#{os_pid}/stat") =~ ") T " end)
  end

  defp resume(%{os_pid: os_pid}), do: {_output, 0} = System.cmd("kill", ["-CONT", os_pid])
end
