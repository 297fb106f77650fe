defmodule Client.DrainTest do
  @moduledoc "Callers on every node while servers move: no call fails, nothing is counted twice or lost."

  use HandoffCase, nodes: 3

  @moduletag :capture_log

  setup %{nodes: [a, b, c]}, do: {:ok, a: a, b: b, c: c}

  test "a drain under load: no failed call, every answered increment is there, and no other", context do
    %{a: a, b: b, c: c} = context
    start_cluster(context)
    SimulatedStore.configure(context.store, latency_ms: 3, slots: 8)
    keys = start_servers(context, a, 40)
    load = Load.start(context.nodes, 4, context.sup, keys, timeout: 30_000)

    assert {:ok, %{moved: 40}} = drain(context, a)

    tally = Load.stop(load)
    assert tally.failed == []
    assert_all_run_on(context, keys, [b, c])
    assert counts(context, b, keys) == tally.ok
  end

  test "a node that shuts down under load: callers on the others see nothing of it", context do
    %{a: a, b: b, c: c} = context
    [app, _b, _c] = start_cluster(context)
    SimulatedStore.configure(context.store, latency_ms: 3, slots: 8)
    keys = start_servers(context, a, 40)
    load = Load.start([b, c], 5, context.sup, keys, timeout: 30_000)

    :ok = stop_children(a, app)

    tally = Load.stop(load)
    assert tally.failed == []
    assert counts(context, b, keys) == tally.ok
  end

  test "callers that ask for a start while all moves: nothing runs twice, nothing is lost", context do
    %{a: a, b: b, c: c} = context
    start_cluster(context)
    SimulatedStore.configure(context.store, latency_ms: 3, slots: 8)
    keys = start_servers(context, a, 20)
    load = Load.start([b, c], 4, context.sup, keys, timeout: 30_000, start: {Counter, %{}})

    assert {:ok, %{moved: 20}} = drain(context, a)

    tally = Load.stop(load)
    assert tally.failed == []
    assert_all_run_on(context, keys, [b, c])
    assert counts(context, b, keys) == tally.ok
  end

  test "a thousand callers of one server that moves: one subscription, all answered", context do
    %{a: a, b: b, sup: sup} = context
    start_cluster(context)
    start_server(context, a, Counter, "k")
    SimulatedStore.pause(context.store, {:put, storage_key(context, "k")})
    move = Task.async(fn -> rehome(context, a, Counter, "k", target_node: b, shutdown_timeout: 60_000) end)
    wait_until(fn -> SimulatedStore.paused(context.store) != [] end)

    calls = Task.async(fn -> call(b, Load, :at_once, [1_000, sup, "k", :add, [timeout: :infinity]]) end)
    # Still in the mailbox of the old owner, which is writing its last state.
    old = whereis(context, a, "k")
    wait_until(fn -> call(a, Process, :info, [old, :message_queue_len]) == {:message_queue_len, 1_000} end)
    SimulatedStore.step(context.store)
    wait_until(fn -> waiting(context, b).callers == 1_000 end)
    assert waiting(context, b).subscriptions == 1

    SimulatedStore.resume(context.store)
    assert {:ok, _moved} = Task.await(move)
    assert calls |> Task.await() |> Enum.sort() == for(n <- 1..1_000, do: {:ok, n})
    wait_until(fn -> waiting(context, b).subscriptions == 0 end)
  end

  defp waiting(context, node), do: call(node, DurableHandoff.Client.Waiting, :counts, [context.sup])

  defp counts(context, node, keys) do
    for key <- keys,
        {:ok, count} = call(node, DurableHandoff, :call, [context.sup, key, :get]),
        count > 0,
        into: %{},
        do: {key, count}
  end
end
