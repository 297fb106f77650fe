defmodule Client.OwnerTest do
  @moduledoc """
  One caller and one server: the effects on a call when the server ends, its node ends or the connection is
  cut.
  """

  use HandoffCase, nodes: 2

  @moduletag :capture_log
  @key "k"

  setup context do
    start_cluster(context)
    :ok
  end

  test "whereis, await and cast find an owner on another node", %{a: a, b: b, sup: sup} = context do
    assert call(b, DurableHandoff, :whereis, [sup, @key]) == nil
    await = Task.async(fn -> call(b, DurableHandoff, :await, [sup, @key, [timeout: :infinity]]) end)
    await_callers(context, b, 1)
    pid = start_server(context, a, Counter, @key)
    assert await_task(await) == {:ok, pid}
    assert call(b, DurableHandoff, :whereis, [sup, @key]) == pid
    assert call(b, DurableHandoff, :cast, [sup, @key, :nothing_it_knows]) == :ok
  end

  test "requests that arrive before and after the stop request: each is handled once, by the old and by the new owner",
       %{a: a, b: b} = context do
    old = start_server(context, a, Troublesome, @key, %{count: 0})
    :ok = ask(old, :block)
    hold_move(context, a, @key, [b])
    before = call_from(context, b, :add, timeout: :infinity)
    await_queued(old, 1)
    move = Task.async(fn -> rehome(context, a, Troublesome, @key, target_node: b) end)
    await_queued(old, 2)
    later = call_from(context, b, :add, timeout: :infinity)
    await_queued(old, 3)

    # The blocked server handles its mailbox, and the held move continues to its target.
    Troublesome.disarm(a, @key, :call)
    await_stopped(context, @key, [b])
    SimulatedStore.resume(context.store)

    assert {:ok, {new, _meta}} = await_task(move)
    assert await_tasks([before, later]) == [{:ok, 1}, {:ok, 2}]
    assert ask(new, :get) == 2
  end

  test "the server stops after its reply: the caller gets the reply", %{a: a, b: b} = context do
    start_server(context, a, Counter, @key)
    assert await_task(call_from(context, b, {:stop, :normal}, timeout: :infinity)) == {:ok, :ok}
  end

  @tag guarantee: "`DurableHandoff.call` never sends a request again that may have been handled"
  test "the server crashes: the caller gets the error at once", %{a: a, b: b} = context do
    start_server(context, a, Counter, @key)
    assert {:error, {%RuntimeError{}, _stack}} = await_task(call_from(context, b, :crash, timeout: :infinity))
  end

  @tag guarantee: "`DurableHandoff.call` never sends a request again that may have been handled"
  test "another owner overwrote its object: the callback has already run, so the request is not sent again",
       context do
    %{a: a, b: b} = context
    start_server(context, a, Troublesome, @key, %{count: 0})
    overwrite(context, @key)
    add = call_from(context, b, {:add, self(), :sync}, start: {Troublesome, %{key: @key, count: 0}}, timeout: 30_000)
    assert {:error, {:shutdown, {:durable, {:fatal_exit, _reason}}}} = await_task(add)
    assert_receive {:handled, ^a}
    refute_received {:handled, _again}
  end

  @tag guarantee: "`DurableHandoff.call` never sends a request again that may have been handled"
  test "the callback stops the server without a reply: the request is not sent again", context do
    for detail <- [:normal, :permanent, :delete] do
      key = "stopped_#{detail}"
      start_server(context, context.a, Troublesome, key, %{count: 0})
      request = {:add, self(), {:stop, {:shutdown, detail}}}
      options = [start: {Troublesome, %{key: key, count: 0}}, timeout: 30_000]

      assert {:error, reason} = call(context.b, DurableHandoff, :call, [context.sup, key, request, options])
      # Before 0.1.5 {:shutdown, :normal} is not a valid stop reason.
      assert match?({:shutdown, ^detail}, reason) or match?({%ArgumentError{}, _stack}, reason)
      assert_receive {:handled, _node}
      refute_received {:handled, _again}
    end
  end

  test "the server's init fails: requests in its mailbox count as not handled", %{a: a} = context do
    for {trouble, reason} <- [ignore: :ignored, stop: :init_failed] do
      key = "init_#{trouble}"
      Troublesome.arm(a, key, :init, :hang)
      child = {Troublesome, key: key, initial_state: %{key: key, count: 0}}
      start = Task.async(fn -> call(a, Host, :start_child, [context.sup, child, [local_only: true]]) end)

      [{_id, booting, _type, _modules}] =
        wait_until(fn -> with [] <- call(a, Host, :which_children, [context.sup]), do: nil end)

      request = Task.async(fn -> call(a, DurableHandoff.Client.Request, :call, [booting, :add, :infinity]) end)
      await_queued(booting, 1)
      Troublesome.arm(a, key, :init, trouble)
      assert {:unhandled, {:shutdown, {:durable, why}}} = await_task(request)
      assert reason in [why, is_tuple(why) && elem(why, 0)]
      refute match?({:ok, _started}, await_task(start))
    end
  end

  test "the connection is cut before the call: the call waits until the owner is reachable", %{a: a, b: b} = context do
    pid = start_server(context, a, Counter, @key)
    await_on(context, b, @key, a)
    disconnect(a, b)
    call = call_from(context, b, :add, timeout: :infinity)
    await_callers(context, b, 1)
    assert ask(pid, :get) == 0
    reconnect(a, b)
    assert await_task(call) == {:ok, 1}
    assert ask(pid, :get) == 1
  end

  @tag guarantee: "`DurableHandoff.call` never sends a request again that may have been handled"
  test "the connection is cut after the request was sent: an error at once, since it may have been handled", context do
    %{a: a, b: b} = context
    pid = start_server(context, a, Troublesome, @key, %{count: 0})
    await_on(context, b, @key, a)
    :ok = ask(pid, :block)
    call = call_from(context, b, :add, timeout: :infinity)
    await_queued(pid, 1)
    disconnect(a, b)
    assert await_task(call) == {:error, :noconnection}
    Troublesome.disarm(a, @key, :call)
    assert ask(pid, :get) == 1
    reconnect(a, b)
    assert await_task(call_from(context, b, :add, timeout: :infinity)) == {:ok, 2}
  end

  @tag guarantee: "`DurableHandoff.call` never sends a request again that may have been handled"
  test "the owner's node is killed: the pending request gets an error, the next one waits", %{b: b} = context do
    doomed = start_node()
    start_handoff(context, doomed)
    pid = start_server(context, doomed, Troublesome, @key, %{count: 0})
    await_on(context, b, @key, doomed)
    :ok = ask(pid, :block)

    [sent, sent_again] =
      for retry <- [:unhandled, :always], do: call_from(context, b, :add, retry: retry, timeout: :infinity)

    await_queued(pid, 2)
    kill(doomed)
    assert await_task(sent) == {:error, :noconnection}
    await_callers(context, b, 1)
    assert await_task(call_from(context, b, :add, timeout: 10)) == {:error, :no_owner}
    Task.shutdown(sent_again)
  end

  test "the server runs nowhere: started once for callers on all nodes", %{a: a, b: b} = context do
    calls =
      for node <- [a, b], _ <- 1..20 do
        call_from(context, node, :add, start: {Counter, %{profile: %{"colour" => "red"}}}, timeout: 30_000)
      end

    assert calls |> await_tasks() |> Enum.sort() == for(n <- 1..40, do: {:ok, n})
    assert map_size(placement(context)) == 1
    assert {:ok, %{profile: %{"colour" => "red"}}} = await_task(call_from(context, a, :state, []))
  end

  test "a call with start: to a stopped server starts it with its stored state", %{a: a, b: b, sup: sup} = context do
    start_server(context, a, Counter, @key)
    assert {:ok, 1} = await_task(call_from(context, b, :add, []))
    :ok = call(a, Host, :terminate_child, [sup, @key])
    assert {:ok, 2} = await_task(call_from(context, b, :add, start: {Counter, %{count: 100}}, timeout: 30_000))
  end

  @tag after_0_1_4: "this version has no cordoned servers"
  test "the server cannot be started: DurableServer's reason", %{a: a, b: b, sup: sup} = context do
    pid = start_server(context, a, Counter, @key)
    await_on(context, b, @key, a)
    :ok = ask(pid, {:durable, {:stop_with_status, :cordoned, :shutdown}})
    wait_until(fn -> call(b, DurableHandoff, :whereis, [sup, @key]) == nil end)
    await_down(pid)
    failed = call_from(context, b, :add, start: {Counter, %{}}, timeout: :infinity)
    assert await_task(failed) == {:error, {:start_failed, :cordoned}}
  end

  test "a bare supervisor, without a client process: callers poll themselves", %{a: a, b: b} = context do
    [name: sup, prefix: _] = names = unique_options()
    start_hosts([a, b], names ++ [backend: context.opts[:backend]])
    context = %{context | sup: sup, opts: Keyword.merge(context.opts, names)}
    call = call_from(context, b, :add, timeout: :infinity)
    start_server(context, a, Counter, @key)
    assert await_task(call) == {:ok, 1}
    assert {:ok, _moved} = move(context, a, Counter, @key, target_node: b)
    assert await_task(call_from(context, a, :add, timeout: :infinity)) == {:ok, 2}
  end

  test "the client process is killed: waiting callers still get a reply", %{a: a, b: b} = context do
    calls = for _ <- 1..20, do: call_from(context, b, :add, timeout: :infinity)
    await_callers(context, b, 20)
    waiting = call(b, Process, :whereis, [DurableHandoff.Client.Server.name(context.sup)])
    Process.exit(waiting, :kill)
    await_down(waiting)
    await_callers(context, b, 20)
    start_server(context, a, Counter, @key)
    assert calls |> await_tasks() |> Enum.sort() == for(n <- 1..20, do: {:ok, n})
  end

  test "DurableServer restarts on the caller's node: callers keep waiting and get a reply",
       %{a: a, b: b} = context do
    calls = for _ <- 1..5, do: call_from(context, b, :add, timeout: :infinity)
    await_callers(context, b, 5)
    host = call(b, DurableHandoff.Host, :whereis, [context.sup])
    Process.exit(host, :kill)
    await_down(host)
    wait_until(fn -> call(b, DurableHandoff.Host, :whereis, [context.sup]) not in [nil, host] end)
    start_server(context, a, Counter, @key)
    assert calls |> await_tasks() |> Enum.sort() == for(n <- 1..5, do: {:ok, n})
  end

  defp call_from(context, node, request, opts) do
    Task.async(fn -> call(node, DurableHandoff, :call, [context.sup, @key, request, opts], :infinity) end)
  end

  defp await_callers(context, node, count) do
    name = DurableHandoff.Client.Server.name(context.sup)

    wait_until(fn ->
      call(node, Process, :whereis, [name]) != nil and
        call(node, DurableHandoff.Client.Server, :counts, [context.sup]).callers == count
    end)
  end
end
