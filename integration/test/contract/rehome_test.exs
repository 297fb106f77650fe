defmodule Contract.RehomeTest do
  @moduledoc "What `rehome_child/3` does, what it returns, and what each failure leaves behind."

  use ClusterCase, nodes: 3

  @key "k"

  setup %{nodes: [a, b, c]}, do: {:ok, a: a, b: b, c: c}

  describe "success" do
    test "the server runs on the target with its state, and nowhere else", %{a: a, b: b} = context do
      start(context)
      old = start_server(context, a, Counter, @key, %{profile: Counter.profile(7), meta: %{region: "x"}})
      assert 1 = GenServer.call(old, :add)

      assert {:ok, {new, %{region: "x"}}} = rehome(context, a, Counter, @key, target_node: b)

      assert node(new) == b
      assert {:noproc, _call} = catch_exit(GenServer.call(old, :get))
      assert %{count: 1, profile: profile} = GenServer.call(new, :state)
      assert profile == Counter.profile(7)
      for node <- context.nodes, do: assert(await_on(context, node, @key, b) == new)
      assert %{status: :running, node_str: node_str, restart_attempt_node: nil} = stored(context, @key).meta
      assert node_str == Atom.to_string(b)
    end

    test "costs one read and three conditional writes, one after the other", %{a: a, b: b, store: store} = context do
      start(context)
      start_server(context, a, Counter, @key)
      SimulatedStore.configure(store, latency_ms: 5)
      SimulatedStore.reset_stats(store)

      assert {:ok, _} = rehome(context, a, Counter, @key, target_node: b)

      assert %{get: 1, put: 3, claim: 0, delete: 0, list: 0, conflict: 0, max_in_flight: 1} =
               SimulatedStore.stats(store)
    end

    test "between stop and start the store holds a reservation for the caller's node",
         %{a: a, b: b, store: store} = context do
      start(context)
      old = start_server(context, a, Counter, @key)
      SimulatedStore.pause(store, {:get, storage_key(context, @key)})

      move = Task.async(fn -> rehome(context, a, Counter, @key, target_node: b) end)
      wait_until(fn -> SimulatedStore.paused(store) == [get: storage_key(context, @key)] end)
      now = System.system_time(:millisecond)

      refute call(a, Process, :alive?, [old])
      meta = stored(context, @key).meta
      assert meta.status == :stopped_graceful
      assert meta.restart_attempt_node == Atom.to_string(a)
      assert_in_delta meta.restart_attempt_ttl - now, 40_000, 5_000

      SimulatedStore.resume(store)
      assert {:ok, {new, _}} = Task.await(move)
      assert node(new) == b
    end

    test "without a target it picks an eligible node", %{a: a} = context do
      start(context)
      start_server(context, a, Counter, @key)
      assert {:ok, {new, _}} = rehome(context, a, Counter, @key, [])
      assert node(new) != a
    end

    test "two callers on one node: one move, for both", %{a: a, b: b, c: c, store: store} = context do
      start(context)
      start_server(context, a, Counter, @key)
      SimulatedStore.pause(store, {:get, storage_key(context, @key)})
      first = Task.async(fn -> rehome(context, a, Counter, @key, target_node: b) end)
      wait_until(fn -> SimulatedStore.paused(store) != [] end)

      {caller, _} = Relay.start(a)
      second = Task.async(fn -> Relay.call(caller, {Host, :rehome_child, [context.sup, child(), [target_node: c]]}) end)
      wait_until(fn -> waits_inside?(a, caller) end)
      SimulatedStore.resume(store)

      assert {:ok, {pid, _}} = Task.await(first)
      assert {:ok, {^pid, _}} = Task.await(second)
      assert node(pid) == b
    end
  end

  describe "failures that leave it running, or about to stop" do
    test "busy server: the stop is queued, it stops later, reserved", %{a: a, b: b} = context do
      start(context)
      old = start_server(context, a, Troublesome, @key, %{count: 3})
      :ok = GenServer.call(old, :block)

      assert {:error, {:shutdown_call_failed, {:timeout, _}}} =
               rehome(context, a, Troublesome, @key, target_node: b, shutdown_timeout: 100)

      assert call(a, Process, :alive?, [old])
      assert stored(context, @key).meta.status == :running

      Troublesome.disarm(a, @key, :call)
      await_down(old)
      assert_displaced(context, a)
      assert_moves_now(context, a, b, Troublesome)
    end

    test "server dies under the stop: not a timeout", %{a: a, b: b} = context do
      start(context)
      old = start_server(context, a, Troublesome, @key, %{count: 0})
      :ok = GenServer.call(old, :block)
      move = Task.async(fn -> rehome(context, a, Troublesome, @key, target_node: b) end)
      wait_until(fn -> call(a, Process, :info, [old, :message_queue_len]) == {:message_queue_len, 1} end)

      call(a, Process, :exit, [old, :kill])

      assert {:error, {:shutdown_call_failed, {:killed, _}}} = Task.await(move)
      Troublesome.disarm(a, @key, :call)
    end

    test "terminate hangs: stop accepted, end not seen", %{a: a, b: b} = context do
      start(context)
      old = start_server(context, a, Troublesome, @key, %{count: 0})
      Troublesome.arm(a, @key, :terminate, :hang)

      assert {:error, :shutdown_timeout} = rehome(context, a, Troublesome, @key, target_node: b, shutdown_timeout: 100)
      assert call(a, Process, :alive?, [old])

      Troublesome.disarm(a, @key, :terminate)
      await_down(old)
      assert_displaced(context, a)
      assert_moves_now(context, a, b, Troublesome)
    end
  end

  describe "failures that leave it displaced" do
    test "target is full: another target at once", %{a: a, b: b, c: c} = context do
      {:ok, _} = start_host(a, context.opts)
      {:ok, _} = start_host(b, context.opts ++ [max_children: 1])
      {:ok, _} = start_host(c, context.opts)
      start_server(context, b, Counter, "fills b")
      start_server(context, a, Counter, @key)

      assert {:error, {:capacity_limit, _}} = rehome(context, a, Counter, @key, target_node: b)
      assert_displaced(context, a)
      assert_moves_now(context, a, c, Counter)
    end

    test "target is draining", %{a: a, b: b, c: c} = context do
      start(context)
      start_server(context, a, Counter, @key)
      :ok = call(b, LifecycleManager, :stop_discovery, [context.sup])

      assert {:error, _refused} = rehome(context, a, Counter, @key, target_node: b)
      assert_displaced(context, a)
      assert_moves_now(context, a, c, Counter)
    end

    test "target runs no such supervisor", %{a: a, b: b, c: c} = context do
      {:ok, _} = start_host(a, context.opts)
      {:ok, _} = start_host(c, context.opts)
      start_server(context, a, Counter, @key)

      assert {:error, :not_ready} = rehome(context, a, Counter, @key, target_node: b)
      assert_displaced(context, a)
      assert_moves_now(context, a, c, Counter)
    end

    test "target is not connected", %{a: a, b: b, c: c} = context do
      start(context)
      start_server(context, a, Counter, @key)
      disconnect(a, b)

      assert {:error, {:erpc, :noconnection}} = rehome(context, a, Counter, @key, target_node: b)
      assert_displaced(context, a)
      assert_moves_now(context, a, c, Counter)
      reconnect(a, b)
    end

    test "target is slow: given up here, it comes up there all the same", %{a: a, b: b, store: store} = context do
      start(context, placement_erpc_timeout_same_region_ms: 200, placement_erpc_timeout_cross_region_ms: 200)
      start_server(context, a, Counter, @key)
      put = {:put, storage_key(context, @key)}
      SimulatedStore.pause(store, put)
      move = Task.async(fn -> rehome(context, a, Counter, @key, target_node: b) end)
      wait_until(fn -> SimulatedStore.paused(store) == [put] end)
      SimulatedStore.step(store)

      assert {:error, {:erpc, :timeout}} = Task.await(move)
      assert SimulatedStore.paused(store) == [put]
      assert_displaced(context, a)

      SimulatedStore.resume(store)
      await_on(context, a, @key, b)
    end

    test "target is slow and the move is retried: one owner, on the target", %{a: a, b: b, store: store} = context do
      start(context, placement_erpc_timeout_same_region_ms: 200, placement_erpc_timeout_cross_region_ms: 200)
      old = start_server(context, a, Counter, @key)
      put = {:put, storage_key(context, @key)}
      SimulatedStore.pause(store, put)
      move = Task.async(fn -> rehome(context, a, Counter, @key, target_node: b) end)
      # The final write and the claim go through; the write after init waits.
      for _ <- 1..2 do
        wait_until(fn -> SimulatedStore.paused(store) == [put] end)
        SimulatedStore.step(store)
      end

      assert {:error, {:erpc, :timeout}} = Task.await(move)
      wait_until(fn -> SimulatedStore.paused(store) == [put] end)
      retry = Task.async(fn -> rehome(context, a, Counter, @key, target_node: b) end)
      SimulatedStore.resume(store)

      # Found starting, found up, still too slow, or not ours any more: never the old one, never a second one.
      case Task.await(retry) do
        {:error, {:already_started, {pid, _}}} -> assert pid != old and node(pid) == b
        {:ok, {pid, _}} -> assert pid != old and node(pid) == b
        {:error, {:rehome_reservation_lost, _}} -> :ok
        {:error, {:erpc, :timeout}} -> :ok
      end

      assert await_on(context, a, @key, b) != old
    end

    test "init raises on the target", %{a: a, b: b, c: c} = context do
      start(context)
      start_server(context, a, Troublesome, @key, %{count: 5})
      Troublesome.arm(b, @key, :init, :raise)

      assert failed?(fn -> rehome(context, a, Troublesome, @key, target_node: b) end)
      assert_displaced(context, a)
      assert 5 = GenServer.call(assert_moves_now(context, a, c, Troublesome), :get)
    end

    test "init returns :ignore on the target: raises", %{a: a, b: b, c: c} = context do
      start(context)
      start_server(context, a, Troublesome, @key, %{count: 5})
      Troublesome.arm(b, @key, :init, :ignore)

      assert catch_error(rehome(context, a, Troublesome, @key, target_node: b))
      assert_displaced(context, a)
      assert 5 = GenServer.call(assert_moves_now(context, a, c, Troublesome), :get)
    end

    test "the store fails the read", %{a: a, b: b, store: store} = context do
      start(context)
      start_server(context, a, Counter, @key)
      SimulatedStore.fail_next(store, :get, storage_key(context, @key), :slow_down)

      assert {:error, _reason} = rehome(context, a, Counter, @key, target_node: b)
      assert_displaced(context, a)
      assert_moves_now(context, a, b, Counter)
    end

    test "the store fails the claim", %{a: a, b: b, store: store} = context do
      start(context)
      start_server(context, a, Counter, @key)
      put = {:put, storage_key(context, @key)}
      SimulatedStore.pause(store, put)
      move = Task.async(fn -> rehome(context, a, Counter, @key, target_node: b) end)
      wait_until(fn -> SimulatedStore.paused(store) == [put] end)
      SimulatedStore.step(store)
      wait_until(fn -> SimulatedStore.paused(store) == [put] end)
      SimulatedStore.fail_next(store, :put, storage_key(context, @key), :slow_down)
      SimulatedStore.resume(store)

      assert {:error, _reason} = Task.await(move)
      assert_displaced(context, a)
      assert_moves_now(context, a, b, Counter)
    end

    test "no target given and none eligible: stopped first, then refused at home when draining", context do
      %{a: a, b: b} = context
      {:ok, _} = start_host(a, context.opts)
      start_server(context, a, Counter, @key)
      :ok = call(a, LifecycleManager, :stop_discovery, [context.sup])

      assert {:error, _refused} = rehome(context, a, Counter, @key, [])
      assert_displaced(context, a)
      {:ok, _} = start_host(b, context.opts)
      assert_moves_now(context, a, b, Counter)
    end
  end

  describe "lost races" do
    test "the final write fails", %{a: a, b: b, store: store} = context do
      start(context)
      old = start_server(context, a, Counter, @key)
      assert 1 = GenServer.call(old, :add_sync)
      assert 2 = GenServer.call(old, :add)
      SimulatedStore.fail_next(store, :put, storage_key(context, @key), :slow_down)

      assert {:error, {:rehome_reservation_lost, _}} = rehome(context, a, Counter, @key, target_node: b)

      refute call(a, Process, :alive?, [old])
      assert stored(context, @key).meta.restart_attempt_node == nil
      # What was not synced is gone.
      assert stored(context, @key).state["count"] == 1
    end

    test "another owner wrote before the final write", %{a: a, b: b, store: store} = context do
      start(context)
      old = start_server(context, a, Counter, @key)
      key = storage_key(context, @key)
      SimulatedStore.pause(store, {:put, key})
      move = Task.async(fn -> rehome(context, a, Counter, @key, target_node: b) end)
      wait_until(fn -> SimulatedStore.paused(store) == [put: key] end)
      stolen = stored(context, @key)
      :ok = SimulatedStore.delete_object(place(context), key)
      {:ok, {:claimed, _}} = SimulatedStore.try_claim(place(context), key, %{stolen | state: %{"count" => 99}})
      SimulatedStore.resume(store)

      assert {:error, {:rehome_reservation_lost, _}} = Task.await(move)
      refute call(a, Process, :alive?, [old])
      assert stored(context, @key).state["count"] == 99
    end
  end

  defp child, do: {Counter, key: @key, initial_state: %{}}

  # Whether the relay has come to wait for something within the call it makes.
  defp waits_inside?(node, relay) do
    case call(node, Process, :info, [relay, [:status, :current_stacktrace]]) do
      [status: :waiting, current_stacktrace: [{module, _, _, _} | _]] -> module != Relay
      _runs -> false
    end
  end

  defp assert_displaced(context, source) do
    for node <- context.nodes, do: wait_until(fn -> whereis_if_up(context, node) == nil end)
    now = System.system_time(:millisecond)
    meta = stored(context, @key).meta
    assert meta.status == :stopped_graceful
    assert meta.restart_attempt_node == Atom.to_string(source)
    assert meta.restart_attempt_ttl > now
  end

  defp whereis_if_up(context, node) do
    if call(node, Host, :ready?, [context.sup]), do: whereis(context, node, @key)
  end

  defp assert_moves_now(context, source, target, module) do
    assert {:ok, {pid, _}} = rehome(context, source, module, @key, target_node: target)
    assert node(pid) == target
    pid
  end

  defp failed?(fun) do
    match?({:error, _}, fun.())
  catch
    _kind, _reason -> true
  end
end
