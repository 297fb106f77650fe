defmodule DurableServer.RehomeTest do
  @moduledoc "Results of a move that can be forced only from inside the stand-in. All others are in the contract suite."

  use ClusterCase, nodes: 2

  @key "k"

  setup %{nodes: [a, b]} = context do
    # Targets get enough time, unless a test says otherwise.
    start(context, [placement_erpc_timeout_cross_region_ms: 60_000] ++ no_sweeps(context))
    {:ok, a: a, b: b}
  end

  test "the target has not received the stop yet: it returns the old pid, and a retry moves the server",
       %{a: a, b: b} = context do
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

  test "too many callers for one key: refused, and the server keeps running", %{a: a, b: b, store: store} = context do
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
end
