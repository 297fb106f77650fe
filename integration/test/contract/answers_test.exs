defmodule Contract.AnswersTest do
  @moduledoc """
  Every answer of `start_child` and `ensure_started_child` that a test can cause, as their callers get it.
  """

  use ClusterCase, nodes: 3

  @key "k"

  test "a first start; already started on this node and on another", %{a: a, b: b} = context do
    start(context)
    answer(context, a, :start_child, "started")
    answer(context, a, :start_child, "runs here")
    await_on(context, b, @key, a)
    answer(context, b, :start_child, "runs elsewhere")
    answer(context, a, :ensure_started_child, "runs here")
    answer(context, b, :ensure_started_child, "runs elsewhere")
    answer(context, b, :ensure_started_child, "existing, runs elsewhere", existing: true)
  end

  test "a server that is missing, stopped, stopped for good or deleted", %{a: a} = context do
    start(context)
    answer(context, a, :ensure_started_child, "existing, nothing stored", existing: true)
    answer(context, a, :ensure_started_child, "nothing stored")

    for {name, stop} <- [
          {"stopped", :terminate_child},
          {"stopped for good", :terminate_child_permanent},
          {"deleted", :terminate_and_delete_child}
        ],
        do: stopped(context, name, stop)

    for stop <- [:terminate_child, :terminate_child_permanent],
        do: record(context, "#{stop}: no such key", call(a, Host, stop, [context.sup, "nothing"]))
  end

  @tag after_0_1_4: "this version has no cordoned servers"
  test "a cordoned server", %{a: a, sup: sup} = context do
    start(context)
    start_server(context, a, Counter, @key)
    stopped(context, "cordoned", :terminate_and_cordon_child)
    record(context, "terminate_child: cordoned", call(a, Host, :terminate_child, [sup, @key]))
  end

  test "init fails", %{a: a} = context do
    start(context)

    for trouble <- [:raise, :stop, :ignore], function <- [:start_child, :ensure_started_child] do
      key = "#{trouble} #{function}"
      Troublesome.arm(a, key, :init, trouble)
      answer(context, a, function, "init #{trouble}", [], {Troublesome, key})
    end
  end

  test "init takes longer than the caller waits: a timeout, and the server still starts", %{a: a} = context do
    start(context)
    Troublesome.arm(a, @key, :init, :hang)
    answer(context, a, :ensure_started_child, "init hangs", [timeout: 300], {Troublesome, @key})
    Troublesome.disarm(a, @key, :init)
    await_on(context, a, @key, a)
  end

  test "a draining node without other nodes", %{a: a} = context do
    {:ok, _} = start_host(a, context.opts)
    :ok = call(a, LifecycleManager, :stop_discovery, [context.sup])
    answer(context, a, :start_child, "draining, local_only", local_only: true)
    answer(context, a, :start_child, "draining, alone")
    answer(context, a, :ensure_started_child, "draining, local_only", local_only: true)
    answer(context, a, :ensure_started_child, "draining, alone")
  end

  test "a draining node with other nodes", %{a: a} = context do
    start(context)
    :ok = call(a, LifecycleManager, :stop_discovery, [context.sup])
    answer(context, a, :ensure_started_child, "draining, others free")
    # Every other node can serve the request by itself, and the answer does not depend on which one did.
    pid = wait_until(fn -> whereis(context, a, @key) end)
    assert node(pid) != a
  end

  test "every node is full, by its total limit", %{a: a, b: b} = context do
    {:ok, _} = start_host(a, context.opts ++ [max_children: 1])
    start_server(context, a, Counter, "fills")
    answer(context, a, :start_child, "total limit reached, local_only", local_only: true)
    answer(context, a, :start_child, "total limit reached, no other node")
    answer(context, a, :ensure_started_child, "total limit reached, no other node")

    {:ok, _} = start_host(b, context.opts ++ [max_children: 1])
    start_server(context, b, Counter, "fills too")
    await_heartbeats([a, b], context.sup)
    answer(context, a, :ensure_started_child, "total limit reached on both nodes")
  end

  test "a node is full for one module", %{a: a} = context do
    {:ok, _} = start_host(a, context.opts ++ [max_children: %{Counter => 1}])
    start_server(context, a, Counter, "fills")
    answer(context, a, :start_child, "module limit reached, local_only", local_only: true)

    other = {Troublesome, @key}
    answer(context, a, :start_child, "limit of another module reached, local_only", [local_only: true], other)
  end

  test "a server reserved for another node: refused until the caller's timeout", %{a: a, b: b} = context do
    start(context)
    pid = start_server(context, a, Counter, @key)
    await_on(context, b, @key, a)
    :ok = ask(pid, {:durable, {:stop_for_rehome, Atom.to_string(a), 3_600_000, :normal}})
    await_none(context, b, @key)
    answer(context, b, :ensure_started_child, "reserved for another node", timeout: 500)
    answer(context, b, :start_child, "reserved for another node", local_only: true, timeout: 500)
    answer(context, a, :ensure_started_child, "reserved for this node", timeout: 60_000)
  end

  test "the server runs on a node that is not connected", %{a: a, b: b} = context do
    start(context)
    start_server(context, a, Counter, @key)
    await_on(context, b, @key, a)
    disconnect(a, b)
    await_none(context, b, @key)
    row = "the owner's node is not connected"
    answer(context, b, :ensure_started_child, row, timeout: 3_000)
    answer(context, b, :start_child, row, local_only: true, timeout: 3_000)
  end

  test "the store fails", %{a: a, store: store} = context do
    start(context)
    key = storage_key(context, @key)
    SimulatedStore.fail_next(store, :get, key, :slow_down)
    answer(context, a, :ensure_started_child, "existing, the store fails the read", existing: true)
    SimulatedStore.fail_next(store, :claim, key, :slow_down)
    answer(context, a, :ensure_started_child, "the store fails the claim")
    SimulatedStore.fail_next(store, :put, key, :slow_down)
    answer(context, a, :ensure_started_child, "the store fails the write after init")
    answer(context, a, :ensure_started_child, "the store had failed the write after init")
  end

  test "no such supervisor on this node", %{a: a} = context do
    for {function, opts} <- [start_child: [local_only: true, timeout: 100], lookup: nil, ready?: nil] do
      args = if opts, do: [context.sup, child(), opts], else: Enum.take([context.sup, @key], arity(function))
      {kind, reason} = call(a, Relay, :try, [{Host, function, args}])
      record(context, "#{function}: no such supervisor", {kind, reason})
    end
  end

  defp stopped(%{a: a} = context, name, stop) do
    record(context, "#{stop}: runs here", call(a, Host, stop, [context.sup, @key]))
    await_none(context, a, @key)
    answer(context, a, :ensure_started_child, "existing, #{name}", existing: true)
    answer(context, a, :ensure_started_child, "#{name}")
  end

  # Records the answer of `function`, start_child or ensure_started_child, in the situation `row`.
  defp answer(context, node, function, row, opts \\ [], {module, key} \\ {Counter, @key}) do
    child = {module, key: key, initial_state: %{key: key, count: 0, meta: %{}}}
    answer = call(node, Relay, :try, [{Host, function, [context.sup, child, opts]}])
    record(context, "#{function}: #{row}", answer)
  end

  defp arity(:ready?), do: 1
  defp arity(_function), do: 2

  defp child, do: {Counter, key: @key, initial_state: %{}}
end
