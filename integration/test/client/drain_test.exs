defmodule Client.DrainTest do
  @moduledoc "Callers on every node while servers move: no call fails, nothing is counted twice or lost."

  use HandoffCase, nodes: 3

  @moduletag :capture_log

  test "a drain under load: no call fails, and each counter equals its answered increments", context do
    start_cluster(context)
    drain = fn -> assert {:ok, %{moved: 40}} = drain(context, context.a) end
    keys = under_load(context, {context.nodes, 4}, 40, [], drain)
    assert_all_run_on(context, keys, [context.b, context.c])
  end

  test "a node shuts down under load: no call from another node fails", %{a: a, b: b, c: c} = context do
    [app, _b, _c] = start_cluster(context)
    under_load(context, {[b, c], 5}, 40, [], fn -> :ok = stop_children(a, app) end)
  end

  test "callers request starts during a drain: no server runs twice, no increment is lost", context do
    %{a: a, b: b, c: c} = context
    start_cluster(context)
    drain = fn -> assert {:ok, %{moved: 20}} = drain(context, a) end
    keys = under_load(context, {[b, c], 4}, 20, [start: {Counter, %{}}], drain)
    assert_all_run_on(context, keys, [b, c])
  end

  test "a thousand callers wait for one moving server: one subscription, and all get a reply", context do
    %{a: a, b: b, sup: sup} = context
    # A thousand callers need time on a busy machine.
    start_cluster(context, placement_erpc_timeout_cross_region_ms: 60_000)
    start_server(context, a, Counter, "k")
    hold_move(context, a, "k", [b])
    SimulatedStore.pause(context.store, {:put, storage_key(context, "k")})
    move = Task.async(fn -> rehome(context, a, Counter, "k", target_node: b, shutdown_timeout: 60_000) end)
    wait_until(fn -> SimulatedStore.paused(context.store) != [] end)

    calls = Task.async(fn -> call(b, Load, :at_once, [1_000, sup, "k", :add, [timeout: :infinity]]) end)
    # The requests are still in the mailbox of the old owner, which is writing its last state.
    old = whereis(context, a, "k")
    await_queued(old, 1_000)
    SimulatedStore.step(context.store)
    wait_until(fn -> waiting(context, b).callers == 1_000 end)
    assert waiting(context, b).subscriptions == 1

    await_stopped(context, "k", [b])
    SimulatedStore.resume(context.store)
    assert {:ok, _moved} = await_task(move)
    assert calls |> await_task() |> Enum.sort() == for(n <- 1..1_000, do: {:ok, n})
    wait_until(fn -> waiting(context, b).subscriptions == 0 end)
  end

  # Starts `count` servers on node a, and callers on each of `nodes` that call them while `move` runs. No call
  # may fail, and each counter must equal its answered increments.
  defp under_load(%{a: a, b: b} = context, {nodes, callers}, count, opts, move) do
    SimulatedStore.configure(context.store, latency_ms: 3, slots: 8)
    keys = start_servers(context, a, count)
    load = Load.start(nodes, callers, context.sup, keys, [timeout: 30_000] ++ opts)
    move.()
    tally = Load.stop(load)
    assert tally.failed == []
    assert counts(context, b, keys) == tally.ok
    keys
  end

  defp waiting(context, node), do: call(node, DurableHandoff.Client.Server, :counts, [context.sup])

  defp counts(context, node, keys) do
    for key <- keys,
        {:ok, count} = call(node, DurableHandoff, :call, [context.sup, key, :get]),
        count > 0,
        into: %{},
        do: {key, count}
  end
end
