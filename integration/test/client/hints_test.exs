defmodule Client.HintsTest do
  @moduledoc "Callers on a node whose registry does not learn of a move: the draining node sends them the new owner."

  use LeftoversCase, nodes: 3

  alias DurableHandoff.Client.Server

  @moduletag :capture_log

  # Node c has callers, and no node picks it as a target.
  setup %{c: c, sup: sup} = context do
    host = {DurableServer.Supervisor, context.opts ++ [heartbeat_meta: %{"draining" => true}]}
    {:ok, _app} = start_children(c, [LateRegistry.client(sup), host])
    wait_until(fn -> call(c, Host, :ready?, [sup]) end)
    {:ok, key: unique("k")}
  end

  test "the registry has no owner: a waiting caller and later ones get a reply", context do
    %{a: a, b: b, c: c, sup: sup, key: key} = context
    start_handoffs(context)
    LateRegistry.freeze(c, sup, key)
    start_server(context, a, Counter, key)
    waiting = Task.async(fn -> add(context) end)
    wait_until(fn -> call(c, Server, :counts, [sup]).callers == 1 end)
    assert {:ok, %{moved: 1}} = drain(context, a)
    assert await_task(waiting) == {:ok, 1}
    assert add(context) == {:ok, 2}
    assert placement(context, [a, b]) == %{key => b}
  end

  test "the registry keeps the old owner: later callers get a reply", context do
    %{a: a, b: b, c: c, sup: sup, key: key} = context
    start_handoffs(context)
    old = start_server(context, a, Counter, key)
    await_on(context, c, key, a)
    LateRegistry.freeze(c, sup, key)
    assert add(context) == {:ok, 1}
    assert {:ok, %{moved: 1}} = drain(context, a)
    for n <- 2..4, do: assert(add(context) == {:ok, n})
    assert call(c, LateRegistry, :owner, [sup, key]) == old
    assert placement(context, [a, b]) == %{key => b}
  end

  test "the server moves twice: the last hint counts", %{a: a, b: b, c: c, sup: sup, key: key} = context do
    start_handoffs(context)
    LateRegistry.freeze(c, sup, key)
    start_server(context, a, Counter, key)
    assert {:ok, %{moved: 1}} = drain(context, a)
    assert add(context) == {:ok, 1}
    third = start_node()
    start_handoff(context, third)
    await_heartbeats([b, third], sup)
    assert {:ok, %{moved: 1}} = drain(context, b)
    assert add(context) == {:ok, 2}
    assert placement(context, [a, b, third]) == %{key => third}
  end

  test "the server has moved and ended: a cast with start: starts it and arrives", %{c: c, sup: sup} = context do
    move_and_end(context)
    options = [start: {Counter, %{}}, timeout: 60_000]
    arguments = [LateRegistry, sup, context.key, {:tell, self()}, options]
    assert call(c, DurableHandoff.Client, :cast, arguments, :infinity) == :ok
    assert_receive {:told, _node}, 60_000
  end

  test "the server has moved and ended: await with start: starts it", %{c: c, sup: sup} = context do
    old = move_and_end(context)
    arguments = [LateRegistry, sup, context.key, [start: {Counter, %{}}, timeout: 60_000]]
    assert {:ok, new} = call(c, DurableHandoff.Client, :await, arguments, :infinity)
    assert new != old
    assert placement(context) == %{context.key => node(new)}
  end

  test "a shutdown leaves the server and another node starts it: a waiting caller gets a reply", context do
    %{a: a, b: b, c: c, sup: sup, key: key} = context
    app = start_uneven(context, a, [b])
    LateRegistry.freeze(c, sup, key)
    start_server(context, a, Counter, key)
    waiting = Task.async(fn -> add(context) end)
    wait_until(fn -> call(c, Server, :counts, [sup]).callers == 1 end)
    block_drain(context, a)
    stopping = Task.async(fn -> stop_children(a, app) end)
    # One offer contains both servers. The blocker stays in it until it stops. The other server may already
    # run on b at the next poll.
    wait_until(fn -> Map.has_key?(held(context, b), "blocker") end)
    unblock(a)
    assert await_task(stopping) == :ok
    assert await_task(waiting) == {:ok, 1}
    assert call(b, DurableHandoff, :whereis, [sup, key])
  end

  test "the source node has no client process: callers on other nodes still get the hint", context do
    %{a: a, b: b, c: c, sup: sup, key: key} = context
    drainer = {DurableHandoff.Drainer, supervisor: sup, handoff_on_shutdown: true}
    {:ok, _app} = start_host(a, context.opts ++ [after: [drainer]])
    start_handoff(context, b)
    await_heartbeats([a, b, c], sup)
    LateRegistry.freeze(c, sup, key)
    start_server(context, a, Counter, key)
    assert {:ok, %{moved: 1}} = drain(context, a)
    assert add(context) == {:ok, 1}
  end

  test "a thousand simultaneous moves are sent as one message to each node", %{a: a, c: c} = context do
    %{sup: sup} = context = another_supervisor(context)
    start_handoff(context, a)
    {listener, _self} = Relay.start(c)
    true = call(c, Process, :register, [listener, Server.name(sup)])
    owners = for n <- 1..1_000, do: {"k#{n}", self()}

    :ok = call(a, :sys, :suspend, [Server.name(sup)])
    for {key, pid} <- owners, do: :ok = call(a, Server, :announce, [sup, key, pid])
    :ok = call(a, :sys, :resume, [Server.name(sup)])

    assert_receive {^listener, {DurableHandoff.Client, :owners, 1, ^owners}}
  end

  defp start_handoffs(%{a: a, b: b, c: c, sup: sup} = context) do
    for node <- [a, b], do: start_handoff(context, node)
    await_heartbeats([a, b, c], sup)
  end

  # The server has moved from a to b and has ended there. Node c has the hint, and never learns of it.
  defp move_and_end(%{a: a, b: b, c: c, sup: sup, key: key} = context) do
    start_handoffs(context)
    LateRegistry.freeze(c, sup, key)
    start_server(context, a, Counter, key, %{permanent: false})
    assert {:ok, %{moved: 1}} = drain(context, a)
    old = await_on(context, b, key, b)
    :ok = call(b, Host, :terminate_child, [sup, key])
    await_down(old)
    wait_until(fn -> call(c, Server, :counts, [sup]).hints == 1 end)
    old
  end

  defp add(%{c: c, sup: sup, key: key}) do
    call(c, DurableHandoff.Client, :call, [LateRegistry, sup, key, :add, [timeout: 60_000]], :infinity)
  end
end
