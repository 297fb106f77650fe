defmodule Contract.ServerTest do
  @moduledoc "A durable server: its callbacks, what it stores when, and the messages it answers."

  use ClusterCase, nodes: 2

  @key "k"

  setup context, do: start(context)

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

  test "each way to stop a server: a reply sent before it arrives before the DOWN, and no later message is handled",
       %{a: a, b: b} = context do
    stop = make_ref()
    call = fn ref, request -> {:"$gen_call", {self(), ref}, request} end

    for {message, reason} <- [
          {call.(stop, {:durable, {:stop_with_status, :stopped_graceful, :shutdown}}), :shutdown},
          {call.(stop, {:durable, {:stop_for_rehome, Atom.to_string(b), 40_000, :shutdown}}), :shutdown},
          {{:durable, {:sync_and_stop, :shutdown}}, :normal}
        ] do
      key = unique("k")
      pid = start_server(context, a, Troublesome, key, %{count: 0})
      :ok = ask(pid, :block)
      ref = Process.monitor(pid)
      [before, late] = [make_ref(), make_ref()]
      for message <- [call.(before, :add), message, call.(late, :add)], do: send(pid, message)
      Troublesome.disarm(a, key, :call)

      assert_receive {:DOWN, ^ref, :process, ^pid, ^reason}
      assert_received {^before, 1}
      if reason == :shutdown, do: assert_received({^stop, :ok})
      refute_received {^late, _reply}
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
