defmodule Contract.SupervisorTest do
  @moduledoc """
  The functions of `DurableServer.Supervisor`, the order of its children, and what they return. The answers of
  `start_child` and `ensure_started_child` are in `Contract.AnswersTest`.
  """

  use ClusterCase, nodes: 2

  @key "k"
  # DurableServer's own limit is five seconds.
  @patient [timeout: 60_000]

  test "an invalid key or state is refused", %{a: a} = context do
    start(context)

    for {row, function, args} <- [
          {"the key is an atom", :start_child, [key: :atom, initial_state: %{}]},
          {"the key is that of a heartbeat", :ensure_started_child, [key: "__nodes/a", initial_state: %{}]},
          {"the state is a list", :ensure_started_child, [key: @key, initial_state: []]}
        ] do
      call = {Host, function, [context.sup, {Counter, args}, []]}
      record(context, "#{function}: #{row}", call(a, Relay, :try, [call]))
    end
  end

  test "an unknown option, also one of the child, is refused", %{a: a} = context do
    start(context)
    child = {Counter, key: @key, initial_state: %{}}
    odd = {Counter, key: @key, initial_state: %{}, no_such_option: true}

    for function <- [:start_child, :ensure_started_child, :rehome_child],
        {child, options} <- [{child, [no_such_option: true]}, {odd, []}] do
      call = {Host, function, [context.sup, child, options]}
      assert {:error, %ArgumentError{}} = call(a, Relay, :try, [call])
    end

    call = {Host, :terminate_and_cordon_child, [context.sup, @key, [no_such_option: true]]}
    assert {:error, %ArgumentError{}} = call(a, Relay, :try, [call])
  end

  test "start_child on a full node: placed elsewhere", %{a: a, b: b} = context do
    {:ok, _} = start_host(a, context.opts ++ [max_children: %{Counter => 1}])
    {:ok, _} = start_host(b, context.opts)
    await_heartbeats(context.nodes, context.sup)
    start_server(context, a, Counter, "fills a")

    assert {:ok, {pid, _}} =
             call(a, Host, :start_child, [context.sup, {Counter, key: @key, initial_state: %{}}, @patient])

    assert node(pid) == b
  end

  test "start_child on a draining node: placed elsewhere", %{a: a, b: b} = context do
    start(context)
    :ok = call(a, LifecycleManager, :stop_discovery, [context.sup])

    assert {:ok, {pid, _}} =
             call(a, Host, :start_child, [context.sup, {Counter, key: @key, initial_state: %{}}, @patient])

    assert node(pid) == b
  end

  test "two nodes start one key at the same time: one owner", %{a: a, b: b} = context do
    start(context)
    started = for node <- [a, b], do: Task.async(fn -> ensure_started(context, node, @key, Counter, %{}, @patient) end)
    assert [{:ok, {pid, _}}, {:ok, {pid, _}}] = await_tasks(started)
  end

  test "lookup: nil for a dead process and for an owner that is not connected", %{a: a, b: b} = context do
    start(context)
    pid = start_server(context, a, Counter, @key)
    await_on(context, b, @key, a)
    disconnect(a, b)
    assert whereis(context, b, @key) == nil
    assert whereis(context, a, @key) == pid
    reconnect(a, b)
    await_on(context, b, @key, a)

    :ok = call(a, Host, :terminate_child, [context.sup, pid])
    assert whereis(context, a, @key) == nil
  end

  test "terminate_child by key and by pid; {:error, :noproc} without such a server", %{a: a} = context do
    start(context)
    start_server(context, a, Counter, @key)
    assert :ok = call(a, Host, :terminate_child, [context.sup, @key])
    assert stored(context, @key).meta.status == :stopped_graceful
    pid = start_server(context, a, Counter, @key)
    assert :ok = call(a, Host, :terminate_child_permanent, [context.sup, pid])
    assert stored(context, @key).meta.status == :stopped_permanent
    assert {:error, :noproc} = call(a, Host, :terminate_child, [context.sup, @key])
  end

  test "which_children and count_children: only servers of this node, without keys", %{a: a, b: b} = context do
    start(context)
    here = start_server(context, a, Counter, "here")
    start_server(context, b, Counter, "there")

    assert [{_id, ^here, _type, modules}] = call(a, Host, :which_children, [context.sup])
    assert DurableServer in modules
    assert %{active: 1} = call(a, Host, :count_children, [context.sup])
  end

  test "__local_global_members__ enumerates this node without reading the store",
       %{a: a, b: b, store: store} = context do
    start(context, quiet(context))
    pid = start_server(context, a, Counter, "here", %{meta: %{region: "x"}})
    start_server(context, b, Counter, "there")
    await_on(context, a, "there", b)
    SimulatedStore.reset_stats(store)

    assert %{"here" => {^pid, meta}} = members = call(a, Host, :__local_global_members__, [context.sup])
    assert map_size(members) == 1
    assert %{key: "here", module: Counter, user_meta: %{region: "x"}, supervisor: supervisor} = meta
    assert supervisor == context.sup
    assert meta.storage_key == storage_key(context, "here")
    assert meta.node_ref == call(a, Host, :node_ref, [context.sup])
    assert is_map_key(meta, :start_time)
    assert %{get: 0, list: 0} = SimulatedStore.stats(store)
  end

  test "get_server_info: the stored facts, in one read", %{a: a, b: b, store: store} = context do
    start(context, quiet(context))
    start_server(context, a, Counter, @key)
    SimulatedStore.reset_stats(store)
    assert {:ok, info} = call(b, Host, :get_server_info, [context.sup, @key])
    assert %{get: 1} = SimulatedStore.stats(store)
    assert %{permanent: true, status: :running, module: Counter} = info
    assert to_string(info.node) == Atom.to_string(a)
    assert {:error, :not_found} = call(b, Host, :get_server_info, [context.sup, "no such key"])
  end

  test "current_capacity: nil without limits, else current and limit of each module or of all", context do
    capacity = fn node, limits ->
      context = another_name(context)
      {:ok, _} = start_host(node, context.opts ++ limits)
      start_server(context, node, Counter, @key)
      call(node, Host, :current_capacity, [context.sup])
    end

    assert capacity.(context.a, []) == nil
    assert %{Counter => %{current: 1, limit: 3}} = capacity.(context.a, max_children: %{Counter => 3})
    record(context, "current_capacity: a total limit", capacity.(context.a, max_children: 3))
  end

  test "node_ref: microseconds at the supervisor's start", %{a: a, b: b} = context do
    clocks = fn -> for node <- [a, b], do: call(node, System, :system_time, [:microsecond]) end
    before = clocks.()
    start(context)
    refs = for node <- [a, b], do: call(node, Host, :node_ref, [context.sup])
    assert [one, two] = refs
    assert one != two
    for {ref, before, now} <- Enum.zip([refs, before, clocks.()]), do: assert(ref in before..now)
  end

  test "__get_config__: raises when the supervisor does not run", %{a: a} = context do
    assert catch_error(call(a, Host, :__get_config__, [context.sup]))
    start(context)
    config = call(a, Host, :__get_config__, [context.sup])
    assert config.prefix == context.opts[:prefix]
    for key <- [:storage_backend, :heartbeat_backend, :ets_table], do: assert(is_map_key(config, key))
  end

  test "__get_sticky_placement_for_module__: as configured, else nil", %{a: a} = context do
    start(context, sticky_placement: %{Counter => [REGION: 5_000, any: 0]})
    assert [REGION: 5_000, any: 0] = call(a, Host, :__get_sticky_placement_for_module__, [context.sup, Counter])
    assert call(a, Host, :__get_sticky_placement_for_module__, [context.sup, Troublesome]) == nil
  end

  test "ready? and wait_until_ready", %{a: a} = context do
    refute call(a, Host, :ready?, [context.sup])
    start(context)
    assert call(a, Host, :ready?, [context.sup])
    assert :ok = call(a, Host, :wait_until_ready, [context.sup, [timeout: 1_000]])
  end

  test "several supervisors in one VM keep their servers apart", %{a: a} = context do
    other = another_name(context)
    for context <- [context, other], do: start(context)
    assert start_server(context, a, Counter, @key) != start_server(other, a, Counter, @key)
    :ok = call(a, LifecycleManager, :stop_discovery, [other.sup])
    assert is_pid(start_server(context, a, Counter, "more"))
  end

  # The same store under another supervisor and prefix.
  defp another_name(context) do
    [name: sup, prefix: _] = names = unique_options()
    %{context | sup: sup, opts: Keyword.merge(context.opts, names)}
  end

  test "a sibling that was started later is stopped first, while all servers still run", %{a: a} = context do
    sup = context.sup

    calls = [
      {Host, :lookup, [sup, @key]},
      {Host, :__local_global_members__, [sup]},
      {Group, :members, [sup, "__heartbeat"]},
      {Host, :ready?, [sup]},
      {LifecycleManager, :stop_discovery, [sup]},
      {Host, :count_children, [sup]}
    ]

    {:ok, app} = start_host(a, context.opts ++ [after: [{LastWords, tell: self(), calls: calls}]])
    pid = start_server(context, a, Counter, @key)
    :ok = stop_children(a, app)

    assert_receive {:last_words, [{^pid, _meta}, %{@key => {^pid, _}}, [_heartbeat], true, :ok, %{active: 1}]}
    assert stored(context, @key).meta.status == :stopped_graceful
  end
end
