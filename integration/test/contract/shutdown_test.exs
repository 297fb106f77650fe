defmodule Contract.ShutdownTest do
  @moduledoc "What happens to servers when their node stops without a drain."

  use ClusterCase, nodes: 1

  @key "k"

  # The node that stops belongs to the test. Its sweeps run at the requested interval.
  setup context do
    sweeping = backend(context, discovery_interval_ms: 20)
    {:ok, doomed: start_node(), opts: Keyword.merge(context.opts, sweeping)}
  end

  test "SIGTERM: every server is stopped gracefully, its last state stored", %{doomed: doomed} = context do
    {:ok, _} = start_host(doomed, context.opts)
    for n <- 1..120, do: ask(start_server(context, doomed, Counter, "k#{n}"), :add)
    Cluster.stop(doomed)

    for n <- 1..120 do
      assert %{state: %{"count" => 1}, meta: %{status: :stopped_graceful, restart_attempt_node: nil}} =
               stored(context, "k#{n}")
    end
  end

  test "draining is announced before the first server stops", %{doomed: doomed, store: store} = context do
    {:ok, _} = start_host(doomed, context.opts)
    start_server(context, doomed, Counter, @key)
    server_key = storage_key(context, @key)
    SimulatedStore.pause(store, {:put, server_key})
    stopping = Task.async(fn -> Cluster.stop(doomed) end)
    wait_until(fn -> SimulatedStore.paused(store) == [put: server_key] end)

    heartbeat = SimulatedStore.peek(store, context.opts[:prefix] <> "__nodes/" <> Atom.to_string(doomed)).body
    assert %{"draining" => true} = heartbeat["heartbeat_meta"]
    SimulatedStore.resume(store)
    await_task(stopping)
  end

  test "another node's sweep starts permanent servers and no others", context do
    %{a: a, doomed: doomed, store: store} = context
    start_hosts([a, doomed], context.opts)
    old = start_server(context, doomed, Counter, "permanent", %{permanent: true})
    assert 1 = ask(old, :add)
    start_server(context, doomed, Counter, "not permanent", %{permanent: false})
    Cluster.stop(doomed)

    new = await_on(context, a, "permanent", a)
    assert 1 = ask(new, :get)
    sweeps = SimulatedStore.stats(store).list
    wait_until(fn -> SimulatedStore.stats(store).list > sweeps + 5 end)
    assert whereis(context, a, "not permanent") == nil

    assert {:ok, {pid, _}} = ensure_started(context, a, "not permanent", Counter, %{}, timeout: 60_000)
    assert node(pid) == a
  end

  test "a killed node's servers are taken only when its heartbeat has expired",
       %{a: a, doomed: doomed, store: store} = context do
    # The killed node's does not in this test, however long that takes.
    start_hosts([a, doomed], context.opts ++ [heartbeat_staleness_threshold_ms: 3_600_000])
    old = start_server(context, doomed, Counter, @key)
    assert 1 = ask(old, :add_sync)
    Cluster.kill(doomed)
    sweeps = SimulatedStore.stats(store).list
    wait_until(fn -> SimulatedStore.stats(store).list > sweeps + 5 end)
    assert stored(context, @key).meta.node_str == Atom.to_string(doomed)

    # The same server, as if its node had been silent for two hours.
    silent_ms = 7_200_000
    %{meta: meta, etag: etag} = stored = stored(context, @key)
    silent = %{meta | node_str: "silent@host", node_ref: 1, last_heartbeat_at: meta.last_heartbeat_at - silent_ms}
    put_heartbeat(context, "silent@host", silent_ms)

    {:ok, _} =
      SimulatedStore.put_object(place(context), storage_key(context, @key), %{stored | meta: silent}, etag: etag)

    new = await_on(context, a, @key, a)
    assert 1 = ask(new, :get)
  end

  test "a draining node takes over no servers", %{a: a, doomed: doomed, store: store} = context do
    start_hosts([a, doomed], context.opts ++ [heartbeat_interval_ms: 20])
    start_server(context, doomed, Counter, @key)
    :ok = call(a, LifecycleManager, :stop_discovery, [context.sup])
    Cluster.stop(doomed)

    # For ten heartbeats it does not even look for servers.
    SimulatedStore.pause(store, {:list, storage_key(context, "")})
    before = SimulatedStore.stats(store)
    wait_until(fn -> SimulatedStore.stats(store).put > before.put + 10 end)
    assert SimulatedStore.paused(store) == []
    assert stored(context, @key).meta.status == :stopped_graceful
    assert whereis(context, a, @key) == nil
  end
end
