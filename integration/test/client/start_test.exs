defmodule Client.StartTest do
  @moduledoc "Calls with `start:` whose server cannot be started yet, or never."

  use HandoffCase, nodes: 2

  alias DurableHandoff.Client.Server

  @moduletag :capture_log
  @key "k"

  test "the store fails: a reply once it works again, or its error if it does not", context do
    start_cluster(context)
    # For as long as this takes: a number of failures could be used up before the last call.
    SimulatedStore.configure(context.store, outage: :writes)
    assert {:error, {:start_failed, :unavailable}} = refused(context)
    before = SimulatedStore.stats(context.store).claim
    add = add(context, timeout: 60_000)
    wait_until(fn -> SimulatedStore.stats(context.store).claim > before end)
    SimulatedStore.configure(context.store, outage: :none)
    assert await_task(add) == {:ok, 1}
  end

  test "no node has room: a reply once one has, or the reason if none has", context do
    %{a: a, b: b} = context
    start_cluster(context, max_children: 1)
    for {node, key} <- [{a, "s1"}, {b, "s2"}], do: start_server(context, node, Counter, key, %{permanent: false})
    assert {:error, {:start_failed, limit}} = refused(context)
    assert match?({:capacity_limit, _limit}, limit) or limit == :max_children
    add = add(context, timeout: 60_000)
    await_waiting(context)
    :ok = call(b, Host, :terminate_child, [context.sup, "s2"])
    assert await_task(add) == {:ok, 1}
  end

  test "all nodes drain: a reply once another node has joined", %{a: a, b: b} = context do
    start_cluster(context)
    for node <- [a, b], do: :ok = call(node, LifecycleManager, :stop_discovery, [context.sup])
    assert {:error, {:start_failed, {:capacity_limit, _limit}}} = refused(context)
    add = add(context, timeout: 60_000)
    await_waiting(context)
    third = start_node()
    start_handoff(context, third)
    assert await_task(add) == {:ok, 1}
    assert placement(context, [a, b, third]) == %{@key => third}
  end

  test "init takes longer than DurableServer waits: the request is sent to the process that runs init", context do
    %{a: a, b: b, sup: sup} = context
    start_cluster(context)
    Troublesome.arm(a, @key, :init, :hang)
    child = {Troublesome, key: @key, initial_state: %{key: @key, count: 0}}
    start = Task.async(fn -> call(a, Host, :start_child, [sup, child, [local_only: true, timeout: 60_000]]) end)

    [{_id, booting, _type, _modules}] = wait_until(fn -> with [] <- call(a, Host, :which_children, [sup]), do: nil end)

    wait_until(fn -> SimulatedStore.peek(context.store, storage_key(context, @key)) end)
    add = add(context, start: {Troublesome, %{key: @key, count: 0}}, timeout: 60_000)
    await_queued(booting, 1)
    refute call(b, DurableHandoff, :whereis, [sup, @key])
    Troublesome.disarm(a, @key, :init)
    assert await_task(add) == {:ok, 1}
    assert {:ok, {^booting, _meta}} = await_task(start)
  end

  @tag after_0_1_4: "this version starts a server whose deletion is not complete"
  test "the server's deletion is not complete: started anew when it is", %{a: a, b: b} = context do
    start_cluster(context)
    pid = start_server(context, a, Counter, @key, %{count: 5})
    await_on(context, b, @key, a)
    SimulatedStore.fail_next(context.store, :delete, storage_key(context, @key), :unavailable)
    assert ask(pid, {:stop, {:shutdown, :delete}}) == :ok
    await_none(context, b, @key)
    assert {:error, {:start_failed, {:already_started, :deleting}}} = refused(context)
    add = add(context, timeout: 60_000)
    await_waiting(context)
    :ok = SimulatedStore.delete_object(place(context), storage_key(context, @key))
    assert await_task(add) == {:ok, 1}
  end

  test "the supervisor restarts during a start: a reply once it is back", %{b: b} = context do
    start_cluster(context)
    add = add_during_restart(context)
    assert await_task(add) == {:ok, 1}
    assert %{callers: 0} = call(b, Server, :counts, [context.sup])
  end

  test "the supervisor restarts during a start, without a client process: a reply once it is back", context do
    for node <- context.nodes, do: {:ok, _app} = start_host(node, context.opts)
    await_heartbeats(context.nodes, context.sup)
    assert await_task(add_during_restart(context)) == {:ok, 1}
  end

  test "a read of the store does not end, without a client process: the call ends at its timeout", context do
    for node <- context.nodes, do: {:ok, _app} = start_host(node, context.opts)
    await_heartbeats(context.nodes, context.sup)
    read = held_read(context)
    assert {:error, _reason} = await_task(add(context, timeout: 300))
    assert Task.yield(read, 0) == nil
  end

  test "reads of the store do not end, and later ones do: other servers start meanwhile", context do
    start_cluster(context)
    read = held_read(context)
    held = for n <- 1..64, do: Task.async(fn -> add_to(context, "#{@key}#{n}", timeout: 1_000) end)
    for result <- await_tasks(held), do: assert({:error, _no_owner} = result)
    assert add_to(context, "other", timeout: 60_000) == {:ok, 1}
    assert Task.yield(read, 0) == nil
  end

  test "init refuses or fails: the reason at once", %{a: a, b: b} = context do
    start_cluster(context)

    for trouble <- [:ignore, :stop, :raise] do
      for node <- [a, b], do: Troublesome.arm(node, @key, :init, trouble)
      failed = add(context, start: {Troublesome, %{key: @key, count: 0}}, timeout: :infinity)
      assert {:error, {:start_failed, _reason}} = await_task(failed)
    end
  end

  @tag after_0_1_4: "this version accepts such keys"
  test "an argument that DurableServer refuses ends the call at once", context do
    start_cluster(context)
    options = [start: {Counter, %{}}, timeout: :infinity]
    refused = call(context.b, DurableHandoff, :call, [context.sup, "__nodes/a", :add, options])
    assert {:error, {:start_failed, {:error, %ArgumentError{}}}} = refused
  end

  test "the server's module does not exist: the reason at once", context do
    start_cluster(context)
    failed = add(context, start: {No.Such.Module, %{}}, timeout: :infinity)
    assert {:error, {:start_failed, _reason}} = await_task(failed)
  end

  defp add(context, opts), do: Task.async(fn -> add_to(context, @key, opts) end)

  defp add_to(context, key, opts) do
    opts = Keyword.put_new(opts, :start, {Counter, %{}})
    call(context.b, DurableHandoff, :call, [context.sup, key, :add, opts], :infinity)
  end

  # A call whose start has begun when the supervisor on its node restarts.
  defp add_during_restart(%{b: b} = context) do
    SimulatedStore.pause(context.store, storage_key(context, @key))
    add = add(context, timeout: 60_000)
    wait_until(fn -> SimulatedStore.paused(context.store) != [] end)
    manager = call(b, DurableHandoff.Host, :whereis, [context.sup])
    true = call(b, Process, :exit, [manager, :kill])
    wait_until(fn -> call(b, DurableHandoff.Host, :whereis, [context.sup]) not in [nil, manager] end)
    SimulatedStore.resume(context.store)
    add
  end

  # The result of a call that times out. On a busy machine it may lack DurableServer's reason, when the client
  # process does not answer in the last quarter of a second or the last start takes longer than the time left.
  # Then the call is repeated.
  defp refused(context) do
    wait_until(fn ->
      case await_task(add(context, timeout: 1_000)) do
        {:error, without_reason} when without_reason in [:no_owner, {:start_failed, :timeout}] -> nil
        refused -> refused
      end
    end)
  end

  defp await_waiting(context), do: wait_until(fn -> call(context.b, Server, :counts, [context.sup]).callers == 1 end)
end
