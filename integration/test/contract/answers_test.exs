defmodule Contract.AnswersTest do
  @moduledoc """
  Every answer of `start_child` and `ensure_started_child` that a test can cause, as their callers get it.
  """

  use ClusterCase, nodes: 3

  @key "k"

  test "a first start; already started on this node and on another", %{a: a, b: b} = context do
    start(context)
    answer(context, "start_child: started", a, :start_child, [])
    answer(context, "start_child: runs here", a, :start_child, [])
    await_on(context, b, @key, a)
    answer(context, "start_child: runs elsewhere", b, :start_child, [])
    answer(context, "ensure_started_child: runs here", a, :ensure_started_child, [])
    answer(context, "ensure_started_child: runs elsewhere", b, :ensure_started_child, [])
    answer(context, "ensure_started_child: existing, runs elsewhere", b, :ensure_started_child, existing: true)
  end

  test "a server that is missing, stopped, stopped for good or deleted", %{a: a} = context do
    start(context)
    answer(context, "ensure_started_child: existing, nothing stored", a, :ensure_started_child, existing: true)
    answer(context, "ensure_started_child: nothing stored", a, :ensure_started_child, [])

    for {name, stop} <- [
          {"stopped", :terminate_child},
          {"stopped for good", :terminate_child_permanent},
          {"deleted", :terminate_and_delete_child}
        ],
        do: stopped(context, name, stop)

    record(context, "terminate_child: no such key", call(a, Host, :terminate_child, [context.sup, "nothing"]))

    record(
      context,
      "terminate_child_permanent: no such key",
      call(a, Host, :terminate_child_permanent, [context.sup, "nothing"])
    )
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
      answer(context, "#{function}: init #{trouble}", a, function, [], {Troublesome, key})
    end
  end

  test "init takes longer than the caller waits: a timeout, and the server still starts", %{a: a} = context do
    start(context)
    Troublesome.arm(a, @key, :init, :hang)
    answer(context, "ensure_started_child: init hangs", a, :ensure_started_child, [timeout: 300], {Troublesome, @key})
    Troublesome.disarm(a, @key, :init)
    await_on(context, a, @key, a)
  end

  test "a draining node without other nodes", %{a: a} = context do
    {:ok, _} = start_host(a, context.opts)
    :ok = call(a, LifecycleManager, :stop_discovery, [context.sup])
    answer(context, "start_child: draining, local_only", a, :start_child, local_only: true)
    answer(context, "start_child: draining, alone", a, :start_child, [])
    answer(context, "ensure_started_child: draining, local_only", a, :ensure_started_child, local_only: true)
    answer(context, "ensure_started_child: draining, alone", a, :ensure_started_child, [])
  end

  test "a draining node with other nodes", %{a: a} = context do
    start(context)
    :ok = call(a, LifecycleManager, :stop_discovery, [context.sup])
    answer(context, "ensure_started_child: draining, others free", a, :ensure_started_child, [])
    # Every node can serve the request by itself, and the answer does not depend on which one did.
    Cluster.wait_until(fn -> whereis(context, a, @key) not in [nil, a] end)
  end

  test "every node is full, by its total limit", %{a: a, b: b} = context do
    {:ok, _} = start_host(a, context.opts ++ [max_children: 1])
    start_server(context, a, Counter, "fills")
    answer(context, "start_child: total limit reached, local_only", a, :start_child, local_only: true)
    answer(context, "start_child: total limit reached, no other node", a, :start_child, [])
    answer(context, "ensure_started_child: total limit reached, no other node", a, :ensure_started_child, [])

    {:ok, _} = start_host(b, context.opts ++ [max_children: 1])
    start_server(context, b, Counter, "fills too")
    await_heartbeats([a, b], context.sup)
    answer(context, "ensure_started_child: total limit reached on both nodes", a, :ensure_started_child, [])
  end

  test "a node is full for one module", %{a: a} = context do
    {:ok, _} = start_host(a, context.opts ++ [max_children: %{Counter => 1}])
    start_server(context, a, Counter, "fills")
    answer(context, "start_child: module limit reached, local_only", a, :start_child, local_only: true)

    answer(
      context,
      "start_child: limit of another module reached, local_only",
      a,
      :start_child,
      [local_only: true],
      {Troublesome, @key}
    )
  end

  test "a server reserved for another node: refused until the caller's timeout", %{a: a, b: b} = context do
    start(context)
    pid = start_server(context, a, Counter, @key)
    await_on(context, b, @key, a)
    :ok = ask(pid, {:durable, {:stop_for_rehome, Atom.to_string(a), 40_000, :normal}})
    await_none(context, b, @key)
    answer(context, "ensure_started_child: reserved for another node", b, :ensure_started_child, timeout: 500)
    answer(context, "start_child: reserved for another node", b, :start_child, local_only: true, timeout: 500)
    answer(context, "ensure_started_child: reserved for this node", a, :ensure_started_child, timeout: 10_000)
  end

  test "the server runs on a node that is not connected", %{a: a, b: b} = context do
    start(context)
    start_server(context, a, Counter, @key)
    await_on(context, b, @key, a)
    disconnect(a, b)

    try do
      await_none(context, b, @key)

      answer(context, "ensure_started_child: the owner's node is not connected", b, :ensure_started_child,
        timeout: 3_000
      )

      answer(context, "start_child: the owner's node is not connected", b, :start_child,
        local_only: true,
        timeout: 3_000
      )
    after
      reconnect(a, b)
    end
  end

  test "the store fails", %{a: a, store: store} = context do
    start(context)
    key = storage_key(context, @key)
    SimulatedStore.fail_next(store, :get, key, :slow_down)

    answer(context, "ensure_started_child: existing, the store fails the read", a, :ensure_started_child, existing: true)

    SimulatedStore.fail_next(store, :claim, key, :slow_down)
    answer(context, "ensure_started_child: the store fails the claim", a, :ensure_started_child, [])
    SimulatedStore.fail_next(store, :put, key, :slow_down)
    answer(context, "ensure_started_child: the store fails the write after init", a, :ensure_started_child, [])
    answer(context, "ensure_started_child: the store had failed the write after init", a, :ensure_started_child, [])
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
    answer(context, "ensure_started_child: existing, #{name}", a, :ensure_started_child, existing: true)
    answer(context, "ensure_started_child: #{name}", a, :ensure_started_child, [])
  end

  defp answer(context, row, node, function, opts, {module, key} \\ {Counter, @key}) do
    child = {module, key: key, initial_state: %{key: key, count: 0, meta: %{}}}

    record(context, row, call(node, Relay, :try, [{Host, function, [context.sup, child, opts]}]))
  end

  defp arity(:ready?), do: 1
  defp arity(_function), do: 2

  defp child, do: {Counter, key: @key, initial_state: %{}}
end
