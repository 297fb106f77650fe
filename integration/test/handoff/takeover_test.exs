defmodule Handoff.TakeoverTest do
  @moduledoc """
  A receiver of leftovers, or their source, ends in the middle: another receiver continues, and no server runs
  twice.
  """

  use LeftoversCase, nodes: 2, patient: true

  test "a receiver is killed before it has started its leftovers: the next one takes them over",
       %{a: a, b: b} = context do
    doomed = start_node()
    keys = leave(context, a, [b, doomed])
    wait_until(fn -> Enum.any?(keys, &(held(context, doomed)[&1] == :trying)) end)
    kill(doomed)
    SimulatedStore.resume(context.store)
    await_all_on(context, ["blocker" | keys], [b])
    await_idle(context, [b])
  end

  test "a receiver's Leftovers process is killed: the next receiver takes its leftovers over",
       %{a: a, b: b} = context do
    other = start_node()
    keys = leave(context, a, [b, other])
    call(other, Process, :exit, [receiver(context, other), :kill])
    wait_until(fn -> Enum.all?(keys, &(held(context, b)[&1] not in [nil, :pending])) end)
    SimulatedStore.resume(context.store)
    await_all_on(context, ["blocker" | keys], [b, other])
    await_idle(context, [b, other])
  end

  test "a receiver drains: the next one takes its leftovers over, and none starts on the draining node",
       %{a: a, b: b} = context do
    leaving = start_node()
    keys = leave(context, a, [b, leaving])
    assert {:ok, %{total: 0}} = drain(context, leaving)
    wait_until(fn -> Enum.all?(keys, &(held(context, b)[&1] not in [nil, :pending])) end)
    assert held(context, leaving) == %{}
    SimulatedStore.resume(context.store)
    await_all_on(context, ["blocker" | keys], [b])
  end

  test "a draining node accepts no leftovers", %{a: a, b: b} = context do
    draining = start_node()
    start_uneven(context, a, [b, draining])
    {:ok, _report} = drain(context, draining)
    message = DurableHandoff.Leftovers.Message.offer(make_ref(), a, [{"k", Counter}], [receiver(context, draining)], 1)
    assert ask(receiver(context, draining), :ready?) == {:error, :draining}
    assert ask(receiver(context, draining), {:take, message}) == {:error, :draining}
  end

  test "a receiver is full: the next one starts the servers that do not fit", %{b: b} = context do
    {a, context} = with_own_clock(context, [b], patient: true)
    FrozenClock.freeze(a)
    small = start_node()
    app = start_handoff(context, a, leaving(context, timeout_ms: 600_000))
    start_handoff(context, b, unswept(context))
    # The node is full before a heartbeat says so.
    silent = [heartbeat_interval_ms: 3_600_000, heartbeat_staleness_threshold_ms: 7_200_000]
    start_handoff(context, small, unswept(context) ++ [max_children: 2] ++ silent)
    await_heartbeats([a, b, small], context.sup)
    # This assigns the blocker, the first server of the plan, to the other node.
    start_server(context, small, Counter, "own")
    keys = start_servers(context, a, 4)
    block_drain(context, a)
    hold_reads(context)
    stopping = Task.async(fn -> stop_children(a, app) end)
    wait_until(fn -> match?({:ok, %{progress: %{}}}, status(context, a)) end)
    # The server starts after the drain asked for the number of servers, so the plan still assigns one to this
    # node.
    start_server(context, small, Counter, "late")
    FrozenClock.advance(a, 600_000)
    wait_until(fn -> Enum.any?(keys, &(active(context, small)[&1] == :trying)) end)
    SimulatedStore.resume(context.store)
    unblock(a)
    :ok = await_task(stopping)
    await_all_on(context, ["own", "late", "blocker" | keys], [b, small])
    assert context |> placement([b, small]) |> Map.drop(["own", "late"]) |> Map.values() |> Enum.uniq() == [b]
  end

  test "a read of the store does not end: the attempt to start a server ends after its time, as a failure of the store",
       %{a: a, b: b} = context do
    start_cluster(context, unswept(context))
    start_server(context, a, Counter, "k")
    :ok = call(a, Host, :terminate_child, [context.sup, "k"])
    await_none(context, b, "k")
    read = held_read(context)
    takeover = [context.sup, "k", Counter, a, 100]
    assert call(b, DurableHandoff.Host.Takeover, :start, takeover) == {:failed, :store}
    assert Task.yield(read, 0) == nil
  end

  test "a server that has run elsewhere since, or was stopped for good, is left alone; so is one that is reserved, for as long",
       %{a: a, b: b} = context do
    other = start_node()
    start_uneven(context, a, [b, other])
    start = &call(b, DurableHandoff.Host.Takeover, :start, [context.sup, &1, Counter, a, 30_000])

    start_server(context, a, Counter, "reserved")
    {:error, {:erpc, :noconnection}} = rehome(context, a, Counter, "reserved", target_node: :"absent@127.0.0.1")
    await_none(context, b, "reserved")
    assert start.("reserved") == {:wait, :reserved}
    expire_reservation(context, "reserved")
    assert start.("reserved") == :started

    for {key, node, stop} <- [{"elsewhere", other, :terminate_child}, {"ended", a, :terminate_child_permanent}] do
      start_server(context, node, Counter, key)
      :ok = call(node, Host, stop, [context.sup, key])
      await_none(context, b, key)
    end

    assert start.("elsewhere") == {:left_alone, :ran_elsewhere}
    assert start.("ended") == {:left_alone, stored(context, "ended").meta.status}
    assert placement(context, [a, b, other]) == %{"reserved" => b}
  end

  test "the source is killed right after its drain: its servers start with their stored states once its locks expire",
       %{a: a, b: b} = context do
    # Its clock stops for good.
    doomed = start_node(patient: true)
    FrozenClock.freeze(doomed)
    start_uneven(context, doomed, [a, b])
    keys = start_servers(context, doomed, 5)
    for key <- keys, do: assert(ask(whereis(context, doomed, key), :add_sync) == 1)
    block_drain(context, doomed)
    before = heartbeat_row(context, a, doomed)
    assert {:ok, %{left: %{deadline: 6}}} = drain_to_deadline(context, doomed)
    wait_until(fn -> Enum.all?([a, b], &(map_size(held(context, &1)) == 6)) end)
    for node <- [a, b], do: put_row(context, node, before, 0)
    kill(doomed)

    wait_until(fn -> Enum.all?(keys, &match?({:locked, _lock}, phase(context, [a, b], &1))) end)
    assert Map.take(placement(context, [a, b]), keys) == %{}

    expire(context, [a, b], before)
    wait_until(fn -> keys -- Map.keys(placement(context, [a, b])) == [] end)
    for key <- keys, do: assert(ask(await_moved(context, a, key, doomed), :get) == 1)
  end

  @tag guarantee: "Nothing runs twice"
  test "the source is killed during its shutdown: each server starts once", %{a: a, b: b} = context do
    doomed = start_node()
    app = start_uneven(context, doomed, [a, b])
    keys = start_servers(context, doomed, 3)
    block_drain(context, doomed)
    before = heartbeat_row(context, a, doomed)
    SimulatedStore.pause(context.store, {:put, storage_key(context, "s2")})
    spawn(fn -> :erpc.cast(doomed, Application, :stop, [app]) end)

    # All servers but one have stopped and run again. The last write of that one arrives late or not at all.
    wait_until(fn -> keys -- Map.keys(placement(context, [a, b])) == ["s2"] end)
    for node <- [a, b], do: put_row(context, node, before, 0)
    kill(doomed)
    wait_until(fn -> match?({:locked, _lock}, phase(context, [a, b], "s2")) end)
    expire(context, [a, b], before)
    SimulatedStore.resume(context.store)
    wait_until(fn -> keys -- Map.keys(placement(context, [a, b])) == [] end)
  end

  # Shuts `source` down with a drain that moves nothing. The receivers' reads of the leftovers are held.
  defp leave(context, source, receivers) do
    app = start_uneven(context, source, receivers)
    keys = start_servers(context, source, 6)
    block_drain(context, source)
    hold_reads(context)
    hold_reads(context, "blocker")
    stopping = Task.async(fn -> stop_children(source, app) end)
    wait_until(fn -> Enum.all?(receivers, &(map_size(held(context, &1)) == 7)) end)
    unblock(source)
    :ok = await_task(stopping)
    keys
  end

  defp expire_reservation(context, key) do
    stored = stored(context, key)
    expired = %{stored | meta: %{stored.meta | restart_attempt_ttl: System.system_time(:millisecond) - 1}}
    {:ok, _object} = SimulatedStore.put_object(place(context), storage_key(context, key), expired)
  end

  defp phase(context, nodes, key) do
    Enum.find_value(nodes, fn node -> with :pending <- held(context, node)[key], do: nil end)
  end
end
