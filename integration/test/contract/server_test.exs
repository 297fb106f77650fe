defmodule Contract.ServerTest do
  @moduledoc "A durable server: its callbacks, what it stores when, and the messages it answers."

  use ClusterCase, nodes: 2

  @key "k"

  setup %{nodes: [a, b]} = context do
    start(context)
    {:ok, a: a, b: b}
  end

  test "first start: the initial state goes through dump, the store's format, load and init", %{a: a} = context do
    pid = start_server(context, a, Counter, @key, %{profile: %{score: 1.5, tag: :word}, meta: %{region: "x"}})
    assert %{count: 0, profile: %{"score" => 1.5, "tag" => "word"}} = ask(pid, :state)
    assert {^pid, %{region: "x"}} = call(a, Host, :lookup, [context.sup, @key])
    assert %{permanent: true, status: :running} = stored(context, @key).meta
  end

  test "a reply that ends in :sync comes after the write", %{a: a, store: store} = context do
    pid = start_server(context, a, Counter, @key)
    key = storage_key(context, @key)
    SimulatedStore.pause(store, {:put, key})
    add = Task.async(fn -> ask(pid, :add_sync) end)
    wait_until(fn -> SimulatedStore.paused(store) == [put: key] end)

    assert Task.yield(add, 0) == nil
    SimulatedStore.resume(store)

    assert await_task(add) == 1
    assert stored(context, @key).state["count"] == 1
  end

  test "state survives: stopped on one node, asked for on another", %{a: a, b: b} = context do
    pid = start_server(context, a, Counter, @key)
    await_on(context, b, @key, a)
    assert 1 = ask(pid, :add)
    assert :ok = call(a, Host, :terminate_child, [context.sup, @key])
    await_none(context, b, @key)

    again = start_server(context, b, Counter, @key, %{count: 100})
    assert 1 = ask(again, :get)
  end

  test "stop_with_status: replies, stops, stores the status", %{a: a} = context do
    for status <- [:stopped_graceful, :stopped_permanent] do
      key = Atom.to_string(status)
      pid = start_server(context, a, Counter, key)
      assert :ok = ask(pid, {:durable, {:stop_with_status, status, :shutdown}})
      await_down(pid)
      assert stored(context, key).meta.status == status
    end
  end

  test "stop_for_rehome: replies, stops, stores a reservation for that node and time", %{a: a} = context do
    pid = start_server(context, a, Counter, @key)
    before = System.system_time(:millisecond)
    assert :ok = ask(pid, {:durable, {:stop_for_rehome, "other@host", 40_000, :shutdown}})
    await_down(pid)
    now = System.system_time(:millisecond)

    meta = stored(context, @key).meta
    assert %{status: :stopped_graceful, restart_attempt_node: "other@host"} = meta
    assert meta.restart_attempt_ttl in (before + 40_000)..(now + 40_000)
  end

  test "sync_and_stop: stops gracefully with reason :normal", %{a: a} = context do
    pid = start_server(context, a, Counter, @key)
    assert 1 = ask(pid, :add)
    ref = Process.monitor(pid)
    send(pid, {:durable, {:sync_and_stop, :shutdown}})
    assert_receive {:DOWN, ^ref, :process, ^pid, :normal}

    assert %{state: %{"count" => 1}, meta: %{status: :stopped_graceful, restart_attempt_node: nil}} =
             stored(context, @key)
  end

  test "get_etag names the stored object", %{a: a} = context do
    pid = start_server(context, a, Counter, @key)
    assert {:ok, etag} = ask(pid, {:durable, :get_etag})
    assert etag == stored(context, @key).etag
    assert 1 = ask(pid, :add_sync)
    assert {:ok, newer} = ask(pid, {:durable, :get_etag})
    assert newer != etag and newer == stored(context, @key).etag
  end

  test "the last write comes after the user's terminate and before the end of the process", context do
    %{a: a, store: store} = context
    pid = start_server(context, a, Troublesome, @key, %{count: 0})
    key = storage_key(context, @key)
    Troublesome.arm(a, @key, :terminate, :hang)
    SimulatedStore.pause(store, {:put, key})
    assert 1 = ask(pid, :add)
    send(pid, {:durable, {:sync_and_stop, :shutdown}})
    wait_until(fn -> Troublesome.hangs?(a, @key, :terminate) end)
    assert SimulatedStore.paused(store) == []

    Troublesome.disarm(a, @key, :terminate)
    wait_until(fn -> SimulatedStore.paused(store) == [put: key] end)
    assert call(a, Process, :alive?, [pid])

    SimulatedStore.resume(store)
    await_down(pid)
    assert stored(context, @key).state["count"] == 1
  end

  test "a reply sent before the stop arrives before the DOWN; later messages are not handled", %{a: a} = context do
    pid = start_server(context, a, Counter, @key)
    ref = Process.monitor(pid)
    [answered, late] = [make_ref(), make_ref()]
    send(pid, {:"$gen_call", {self(), answered}, :add})
    send(pid, {:durable, {:sync_and_stop, :shutdown}})
    send(pid, {:"$gen_call", {self(), late}, :add})

    assert_receive {:DOWN, ^ref, :process, ^pid, :normal}
    {:messages, messages} = Process.info(self(), :messages)
    assert {answered, 1} in messages
    refute Enum.any?(messages, &match?({^late, _}, &1))
    assert stored(context, @key).state["count"] == 1
  end

  test "each way to stop a server: it handles no message that came later, from this node or another", context do
    %{a: a, b: b} = context

    for {message, n} <-
          Enum.with_index([
            {:stop_with_status, :stopped_graceful, :shutdown},
            {:stop_for_rehome, Atom.to_string(b), 40_000, :shutdown}
          ]) do
      key = "#{@key}#{n}"
      pid = start_server(context, a, Troublesome, key, %{count: 0})
      :ok = ask(pid, :block)
      ref = Process.monitor(pid)
      [before, stop, late] = for _ <- 1..3, do: make_ref()
      send(pid, {:"$gen_call", {self(), before}, :add})
      send(pid, {:"$gen_call", {self(), stop}, {:durable, message}})
      send(pid, {:"$gen_call", {self(), late}, :add})
      Troublesome.disarm(a, key, :call)

      assert_receive {:DOWN, ^ref, :process, ^pid, :shutdown}
      {:messages, messages} = Process.info(self(), :messages)
      assert {before, 1} in messages and {stop, :ok} in messages
      refute Enum.any?(messages, &match?({^late, _}, &1))
      assert stored(context, key).state["count"] == 1
    end
  end

  test "a crash is stored as such and does not restart by itself", %{a: a} = context do
    pid = start_server(context, a, Counter, @key)
    catch_exit(GenServer.call(pid, :crash))
    wait_until(fn -> stored(context, @key).meta.status == :crashed end)
    wait_until(fn -> call(a, Host, :count_children, [context.sup]).active == 0 end)
  end
end
