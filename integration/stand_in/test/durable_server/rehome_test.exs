defmodule DurableServer.RehomeTest do
  @moduledoc "Results of a move that can be forced only from inside the stand-in. All others are in the contract suite."

  use ClusterCase, nodes: 2

  @key "k"

  setup %{nodes: [a, b]} = context do
    # A target may take its time, except where a test says otherwise.
    start(context, placement_erpc_timeout_same_region_ms: 60_000)
    {:ok, a: a, b: b}
  end

  test "the target has not heard of the stop yet: the old pid, then a retry moves it", %{a: a, b: b} = context do
    old = start_server(context, a, Counter, @key)
    await_on(context, b, @key, a)
    deaf = Group.Replica.name(context.sup)
    :ok = call(b, :sys, :suspend, [deaf])

    assert {:error, {:already_started, {^old, _}}} = rehome(context, a, Counter, @key, target_node: b)
    refute call(a, Process, :alive?, [old])

    :ok = call(b, :sys, :resume, [deaf])
    wait_until(fn -> whereis(context, b, @key) == nil end)
    assert {:ok, {new, _}} = rehome(context, a, Counter, @key, target_node: b)
    assert node(new) == b
  end

  test "the target is still starting it: the retry joins, another live pid", %{a: a, b: b, store: store} = context do
    start_server(context, a, Counter, @key)
    [read, put] = for op <- [:get, :put], do: {op, storage_key(context, @key)}
    hold_move(context, a, @key, [b])
    SimulatedStore.pause(store, put)
    wait_for_target(context, a, 500)
    move = Task.async(fn -> rehome(context, a, Counter, @key, target_node: b) end)
    wait_until(fn -> SimulatedStore.paused(store) == [put] end)
    SimulatedStore.step(store)
    await_stopped(context, @key, [b])
    SimulatedStore.step(store, read)
    # The claim goes through; the write after init waits.
    wait_until(fn -> SimulatedStore.paused(store) == [put] end)
    SimulatedStore.step(store)

    assert {:error, {:erpc, :timeout}} = await_task(move)
    wait_for_target(context, a, 60_000)
    wait_until(fn -> SimulatedStore.paused(store) == [put] end)
    starting = stored(context, @key).meta.pid
    retry = Task.async(fn -> rehome(context, a, Counter, @key, target_node: b) end)
    wait_until(fn -> SimulatedStore.paused(store) == [put, read] end)
    SimulatedStore.step(store, read)
    wait_until(fn -> call(b, Process, :info, [starting, :message_queue_len]) == {:message_queue_len, 1} end)
    SimulatedStore.resume(store)

    assert {:error, {:already_started, {^starting, _}}} = await_task(retry)
    assert await_on(context, a, @key, b) == starting
  end

  test "too many callers for one key: refused, still running", %{a: a, b: b, store: store} = context do
    pid = start_server(context, a, Troublesome, @key, %{count: 0})
    :ok = GenServer.call(pid, :block)
    move = fn -> rehome(context, a, Troublesome, @key, target_node: b) end
    callers = for _ <- 1..101, do: Task.async(move)
    waiting = DurableServer.SingleFlight.waiting(call(a, Host, :__get_config__, [context.sup]).flight_registry)
    wait_until(fn -> length(call(a, Registry, :lookup, [waiting, {@key, Troublesome}])) == 100 end)

    assert {:error, :singleflight_overloaded} = move.()
    assert call(a, Process, :alive?, [pid])

    hold_move(context, a, @key, [b])
    Troublesome.disarm(a, @key, :call)
    await_stopped(context, @key, [b])
    SimulatedStore.resume(store)
    assert [{:ok, {moved, _}}] = callers |> await_tasks() |> Enum.uniq()
    assert node(moved) == b
    assert SimulatedStore.paused(store) == []
  end

  test "the target dies between claim and last write: the next target takes over at once", context do
    %{a: a, b: b, store: store} = context
    doomed = start_node()
    {:ok, _} = start_host(doomed, context.opts)
    start_server(context, a, Troublesome, @key, %{count: 3})
    Troublesome.arm(doomed, @key, :init, :hang)
    hold_move(context, a, @key, [b, doomed])
    move = Task.async(fn -> rehome(context, a, Troublesome, @key, target_node: doomed) end)
    await_stopped(context, @key, [b, doomed])
    SimulatedStore.resume(store)
    wait_until(fn -> stored(context, @key).meta.node_str == Atom.to_string(doomed) end)

    Cluster.kill(doomed)

    assert {:error, {:erpc, :noconnection}} = await_task(move)
    assert {:ok, {pid, _}} = rehome(context, a, Troublesome, @key, target_node: b)
    assert node(pid) == b
    assert 3 = GenServer.call(pid, :get)
  end

  # How long a move from `node` waits for its target from now on.
  defp wait_for_target(context, node, ms) do
    %{ets_table: table} = config = call(node, Host, :__get_config__, [context.sup])
    call(node, :ets, :insert, [table, {:config, %{config | placement_erpc_timeout_same_region_ms: ms}}])
  end
end
