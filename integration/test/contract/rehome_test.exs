defmodule Contract.RehomeTest do
  @moduledoc "What `rehome_child/3` does, what it returns, and what each failure leaves behind."

  use ClusterCase, nodes: 3

  @key "k"

  # Targets get enough time, unless a test says otherwise.
  @patient [placement_erpc_timeout_same_region_ms: 60_000, placement_erpc_timeout_cross_region_ms: 60_000]

  setup %{opts: opts}, do: {:ok, opts: Keyword.merge(opts, @patient)}

  describe "success" do
    test "the server runs on the target with its state, and nowhere else", %{a: a, b: b} = context do
      start(context)
      old = start_known(context, a, Counter, %{profile: Counter.profile(7), meta: %{region: "x"}})
      assert 1 = ask(old, :add)

      assert {:ok, {new, %{region: "x"}}} = move(context, a, Counter, @key, target_node: b)

      assert node(new) == b
      assert {:noproc, _call} = catch_exit(GenServer.call(old, :get))
      assert %{count: 1, profile: profile} = ask(new, :state)
      assert profile == Counter.profile(7)
      for node <- context.nodes, do: assert(await_on(context, node, @key, b) == new)
      assert %{status: :running, node_str: node_str, restart_attempt_node: nil} = stored(context, @key).meta
      assert node_str == Atom.to_string(b)
    end

    test "costs one read and three conditional writes, one after the other", %{a: a, b: b, store: store} = context do
      start(context, quiet(context))
      start_known(context, a, Counter)
      SimulatedStore.configure(store, latency_ms: 5)
      SimulatedStore.reset_stats(store)

      assert {:ok, _} = move(context, a, Counter, @key, target_node: b)

      assert %{get: 1, put: 3, claim: 0, delete: 0, list: 0, conflict: 0, max_in_flight: 1} =
               SimulatedStore.stats(store)
    end

    test "between stop and start the store holds a reservation for the caller's node",
         %{a: a, b: b, store: store} = context do
      start(context)
      old = start_known(context, a, Counter)
      hold_move(context, a, @key, [b])
      clock = fn -> call(a, System, :system_time, [:millisecond]) end
      before = clock.()

      move = Task.async(fn -> rehome(context, a, Counter, @key, target_node: b) end)
      await_stopped(context, @key, [b])
      now = clock.()

      refute call(a, Process, :alive?, [old])
      meta = stored(context, @key).meta
      assert meta.status == :stopped_graceful
      assert meta.restart_attempt_node == Atom.to_string(a)
      assert meta.restart_attempt_ttl in (before + 40_000)..(now + 40_000)

      SimulatedStore.resume(store)
      assert {:ok, {new, _}} = await_task(move)
      assert node(new) == b
    end

    test "without a target it picks an eligible node", %{a: a} = context do
      start(context)
      start_known(context, a, Counter)
      assert {:ok, {new, _}} = move(context, a, Counter, @key, [])
      assert node(new) != a
    end

    test "two callers on one node: one move, for both", %{a: a, b: b, c: c, store: store} = context do
      start(context)
      start_known(context, a, Counter)
      hold_move(context, a, @key, [b])
      [{leader, _}, {follower, _}] = for _ <- 1..2, do: Relay.start(a)
      rehome = &{Host, :rehome_child, [context.sup, child(), [target_node: &1]]}
      first = Task.async(fn -> Relay.call(leader, rehome.(b)) end)
      await_stopped(context, @key, [b])
      second = Task.async(fn -> Relay.call(follower, rehome.(c)) end)
      wait_until(fn -> waits_for?(a, follower, leader) end)
      SimulatedStore.resume(store)

      assert {:ok, {pid, _}} = await_task(first)
      assert {:ok, {^pid, _}} = await_task(second)
      assert node(pid) == b
    end
  end

  describe "failures after which the server runs, or will stop" do
    test "busy server: the stop is queued, and it stops later with a reservation", %{a: a, b: b} = context do
      start(context)
      old = start_known(context, a, Troublesome, %{count: 3})
      :ok = ask(old, :block)

      opts = [target_node: b, shutdown_timeout: 100]
      record(context, "rehome_child: busy server", rehome(context, a, Troublesome, @key, opts))

      assert call(a, Process, :alive?, [old])
      assert stored(context, @key).meta.status == :running

      Troublesome.disarm(a, @key, :call)
      await_down(old)
      assert_displaced_not_lost(context, a, b, Troublesome)
    end

    test "the server dies while it is told to stop: not a timeout", %{a: a, b: b} = context do
      start(context)
      old = start_known(context, a, Troublesome, %{count: 0})
      :ok = ask(old, :block)
      move = Task.async(fn -> rehome(context, a, Troublesome, @key, target_node: b) end)
      await_queued(old, 1)

      call(a, Process, :exit, [old, :kill])

      record(context, "rehome_child: the server dies while it is told to stop", await_task(move))
      Troublesome.disarm(a, @key, :call)
    end

    test "terminate hangs: the stop is answered only after it", %{a: a, b: b} = context do
      start(context)
      old = start_known(context, a, Troublesome, %{count: 0})
      Troublesome.arm(a, @key, :terminate, :hang)

      opts = [target_node: b, shutdown_timeout: 2_000]
      record(context, "rehome_child: terminate hangs", rehome(context, a, Troublesome, @key, opts))
      assert call(a, Process, :alive?, [old])

      Troublesome.disarm(a, @key, :terminate)
      await_down(old)
      assert_displaced_not_lost(context, a, b, Troublesome)
    end
  end

  describe "failures after which the server is displaced" do
    test "target is full: another target at once", %{a: a, b: b, c: c} = context do
      {:ok, _} = start_host(a, context.opts)
      {:ok, _} = start_host(b, context.opts ++ [max_children: 1])
      {:ok, _} = start_host(c, context.opts)
      start_server(context, b, Counter, "fills b")
      start_known(context, a, Counter)

      record_tried(context, "target is full", fn -> move(context, a, Counter, @key, target_node: b) end)
      assert_displaced_not_lost(context, a, c, Counter)
    end

    test "target is draining", %{a: a, b: b, c: c} = context do
      start(context)
      start_known(context, a, Counter)
      :ok = call(b, LifecycleManager, :stop_discovery, [context.sup])

      record_tried(context, "target drains", fn -> move(context, a, Counter, @key, target_node: b) end)
      assert_displaced_not_lost(context, a, c, Counter)
    end

    test "target runs no such supervisor", %{a: a, b: b, c: c} = context do
      {:ok, _} = start_host(a, context.opts)
      {:ok, _} = start_host(c, context.opts)
      start_known(context, a, Counter)

      record_rehome(context, "target runs no such supervisor", target_node: b)
      assert_displaced_not_lost(context, a, c, Counter)
    end

    test "target is not connected", %{a: a, b: b, c: c} = context do
      start(context)
      start_known(context, a, Counter)
      disconnect(a, b)

      record_rehome(context, "target is not connected", target_node: b)
      assert_displaced_not_lost(context, a, c, Counter)
      reconnect(a, b)
    end

    test "target is slow: the caller gives up, and the server still starts there",
         %{a: a, b: b, store: store} = context do
      start(context, placement_erpc_timeout_same_region_ms: 200, placement_erpc_timeout_cross_region_ms: 200)
      start_known(context, a, Counter)
      put = {:put, storage_key(context, @key)}
      move = hold_claim(context, a, b)

      record(context, "rehome_child: target is slow", await_task(move))
      wait_until(fn -> SimulatedStore.paused(store) == [put] end)
      assert_displaced(context, a)

      SimulatedStore.resume(store)
      await_on(context, a, @key, b)
    end

    test "target is slow and the move is retried: one owner, on the target", %{a: a, b: b, store: store} = context do
      start(context, placement_erpc_timeout_same_region_ms: 200, placement_erpc_timeout_cross_region_ms: 200)
      old = start_known(context, a, Counter)
      put = {:put, storage_key(context, @key)}
      move = hold_claim(context, a, b)
      # The claim is applied; the write after init waits.
      wait_until(fn -> SimulatedStore.paused(store) == [put] end)
      SimulatedStore.step(store)

      assert {:error, {:erpc, :timeout}} = await_task(move)
      wait_until(fn -> SimulatedStore.paused(store) == [put] end)
      retry = Task.async(fn -> rehome(context, a, Counter, @key, target_node: b) end)
      SimulatedStore.resume(store)

      # The retry finds the server starting, running or still too slow, or its reservation lost; never the old
      # process, and never a second one.
      case await_task(retry) do
        {:error, {:already_started, {pid, _}}} -> assert pid != old and node(pid) == b
        {:ok, {pid, _}} -> assert pid != old and node(pid) == b
        {:error, {:rehome_reservation_lost, _}} -> :ok
        {:error, {:erpc, :timeout}} -> :ok
      end

      assert await_on(context, a, @key, b) != old
    end

    test "init hangs on the target: the target gives up, and the server still starts there", %{a: a, b: b} = context do
      start(context)
      start_known(context, a, Troublesome, %{count: 5})
      Troublesome.arm(b, @key, :init, :hang)
      record(context, "rehome_child: init hangs on the target", move(context, a, Troublesome, @key, target_node: b))
      record(context, "rehome_child: init hangs on the target: left", left(context))
      Troublesome.disarm(b, @key, :init)
      assert 5 = ask(await_on(context, a, @key, b), :get)
    end

    test "target dies between claim and last write: locked until its heartbeat has expired", context do
      %{a: a, b: b} = context
      doomed = start_node()
      context = %{context | nodes: [a, b, doomed]}
      # It does not in this test, however long that takes.
      start(context, heartbeat_staleness_threshold_ms: 3_600_000)
      start_known(context, a, Troublesome, %{count: 3})
      Troublesome.arm(doomed, @key, :init, :hang)
      moving = Task.async(fn -> move(context, a, Troublesome, @key, target_node: doomed) end)
      wait_until(fn -> stored(context, @key).meta.node_str == Atom.to_string(doomed) end)

      Cluster.kill(doomed)

      record(context, "rehome_child: target dies after its claim", await_task(moving))
      again = rehome(context, a, Troublesome, @key, target_node: b)
      record(context, "rehome_child: target died after its claim, another target", again)
    end

    for {how, does, did} <- [{:raise, "raises", "raised"}, {:ignore, "ignores", "ignored"}] do
      test "init #{does} on the target", %{a: a, b: b, c: c} = context do
        start(context)
        start_known(context, a, Troublesome, %{count: 5})
        Troublesome.arm(b, @key, :init, unquote(how))
        move = fn -> move(context, a, Troublesome, @key, target_node: b) end
        record_tried(context, "init " <> unquote(does) <> " on the target", move)

        # The target has claimed the server, but no process runs there: no reservation is left.
        record(context, "rehome_child: init " <> unquote(did) <> " on the target: left", left(context))
        assert 5 = ask(assert_moves_now(context, a, c, Troublesome), :get)
      end
    end

    test "the store fails the read", %{a: a, b: b, store: store} = context do
      start(context)
      start_known(context, a, Counter)
      SimulatedStore.fail_next(store, :get, storage_key(context, @key), :slow_down)
      record_rehome(context, "the store fails the read", target_node: b)
      assert_displaced_not_lost(context, a, b, Counter)
    end

    test "the store fails the claim", %{a: a, b: b, store: store} = context do
      start(context)
      start_known(context, a, Counter)
      put = {:put, storage_key(context, @key)}
      move = hold_claim(context, a, b)
      wait_until(fn -> SimulatedStore.paused(store) == [put] end)
      SimulatedStore.fail_next(store, :put, storage_key(context, @key), :slow_down)
      SimulatedStore.resume(store)

      record(context, "rehome_child: the store fails the claim", await_task(move))
      assert_displaced_not_lost(context, a, b, Counter)
    end

    test "no target given and none eligible: the server is stopped, then refused by its own draining node", context do
      %{a: a, b: b} = context
      {:ok, _} = start_host(a, context.opts)
      start_known(context, a, Counter)
      :ok = call(a, LifecycleManager, :stop_discovery, [context.sup])
      record_rehome(context, "draining, no target given, none eligible", [])
      assert_displaced(context, a)
      {:ok, _} = start_host(b, context.opts)
      assert_moves_now(context, a, b, Counter)
    end
  end

  describe "lost races" do
    test "the final write fails", %{a: a, b: b, store: store} = context do
      start(context)
      old = start_known(context, a, Counter)
      assert 1 = ask(old, :add_sync)
      assert 2 = ask(old, :add)
      SimulatedStore.fail_next(store, :put, storage_key(context, @key), :slow_down)
      record_rehome(context, "the final write fails", target_node: b)
      refute call(a, Process, :alive?, [old])
      assert stored(context, @key).meta.restart_attempt_node == nil
      # Changes without a sync are lost.
      assert stored(context, @key).state["count"] == 1
    end

    test "another owner wrote before the final write", %{a: a, b: b, store: store} = context do
      start(context)
      old = start_known(context, a, Counter)
      key = storage_key(context, @key)
      SimulatedStore.pause(store, {:put, key})
      move = Task.async(fn -> tried(fn -> rehome(context, a, Counter, @key, target_node: b) end) end)
      wait_until(fn -> SimulatedStore.paused(store) == [put: key] end)
      stolen = stored(context, @key)
      :ok = SimulatedStore.delete_object(place(context), key)
      {:ok, {:claimed, _}} = SimulatedStore.try_claim(place(context), key, %{stolen | state: %{"count" => 99}})
      SimulatedStore.resume(store)

      record(context, "rehome_child: another owner wrote before the final write", await_task(move))
      refute call(a, Process, :alive?, [old])
      assert stored(context, @key).state["count"] == 99
    end
  end

  defp child, do: {Counter, key: @key, initial_state: %{}}

  # Every node has received the registration, so that it later receives the unregistration.
  defp start_known(context, node, module, state \\ %{}) do
    pid = start_server(context, node, module, @key, state)
    for other <- context.nodes, up?(context, other), do: await_on(context, other, @key, node)
    pid
  end

  # Starts a move from `source` and holds its writes from the claim on. The final write is applied, and the
  # target has received the stop.
  defp hold_claim(%{store: store} = context, source, target) do
    [read, put] = for op <- [:get, :put], do: {op, storage_key(context, @key)}
    hold_move(context, source, @key, [target])
    SimulatedStore.pause(store, put)
    move = Task.async(fn -> rehome(context, source, Counter, @key, target_node: target) end)
    wait_until(fn -> SimulatedStore.paused(store) == [put] end)
    SimulatedStore.step(store)
    await_stopped(context, @key, [target])
    SimulatedStore.step(store, read)
    move
  end

  # Whether the process monitors the other one and waits for its answer or its end.
  defp waits_for?(node, waiting, other) do
    [monitors: monitored, status: status] = call(node, Process, :info, [waiting, [:monitors, :status]])
    {:process, other} in monitored and status == :waiting
  end

  defp assert_displaced(context, source) do
    for node <- context.nodes, up?(context, node), do: await_none(context, node, @key)
    now = System.system_time(:millisecond)
    meta = stored(context, @key).meta
    assert meta.status == :stopped_graceful
    assert meta.restart_attempt_node == Atom.to_string(source)
    assert meta.restart_attempt_ttl > now
  end

  # The server is down and reserved for `source`, and starts on `target` at the next try.
  defp assert_displaced_not_lost(context, source, target, module) do
    assert_displaced(context, source)
    assert_moves_now(context, source, target, module)
  end

  defp up?(context, node), do: call(node, Host, :ready?, [context.sup])

  defp assert_moves_now(context, source, target, module) do
    assert {:ok, {pid, _}} = rehome(context, source, module, @key, target_node: target)
    assert node(pid) == target
    pid
  end

  defp record_rehome(context, row, opts),
    do: record_tried(context, row, fn -> rehome(context, context.a, Counter, @key, opts) end)

  # What was returned or raised.
  defp record_tried(context, row, fun), do: record(context, "rehome_child: " <> row, tried(fun))

  defp tried(fun), do: Relay.try({Kernel, :apply, [fun, []]})

  defp left(context) do
    %{meta: meta} = stored(context, @key)
    Map.take(meta, [:status, :node_str, :restart_attempt_node])
  end
end
