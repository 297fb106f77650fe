defmodule Contract.PlacementTest do
  @moduledoc "Heartbeats, eligible nodes, and how other nodes learn that a node drains."

  use ClusterCase, nodes: 3

  # A node reads the heartbeats of all with each of its own.
  @soon [heartbeat_interval_ms: 50]

  describe "heartbeats" do
    test "the stored form: a map with string keys under __nodes/", %{a: a, store: store} = context do
      start(context, max_children: %{Counter => 7}, heartbeat_meta: %{"version" => "1"}, placement_region: "x")
      key = context.opts[:prefix] <> "__nodes/" <> Atom.to_string(a)
      heartbeat = SimulatedStore.peek(store, key).body

      assert heartbeat["node"] == Atom.to_string(a)
      assert heartbeat["node_ref"] == call(a, Host, :node_ref, [context.sup])
      assert is_integer(heartbeat["last_heartbeat_at"])
      assert %{"Elixir.Servers.Counter" => %{"current" => 0, "limit" => 7}} = heartbeat["capacity"]
      assert %{"version" => "1", "placement_region" => "x"} = heartbeat["heartbeat_meta"]
    end

    test "the cache: one row of seven elements for each node", %{a: a} = context do
      facts = [max_children: %{Counter => 7}, heartbeat_meta: &ClusterCase.version_meta/0]
      start(context, facts ++ @soon)
      table = :"durable_server_heartbeats_#{context.sup}"
      rows = wait_until(fn -> with rows when length(rows) >= 3 <- node_rows(a, table), do: rows, else: (_ -> nil) end)

      for node <- context.nodes do
        ref = call(node, Host, :node_ref, [context.sup])
        row = List.keyfind(rows, Atom.to_string(node), 0)

        assert {_name, ^ref, stamp, capacity, _resources, _env_vars, %{"version" => "1"}} = row
        assert %{Counter => %{current: 0, limit: 7}} = capacity
        assert is_integer(stamp)
      end
    end

    test "Group's members under __heartbeat: the same facts, newer", %{a: a, b: b} = context do
      start(context, max_children: %{Counter => 7})
      members = call(a, Group, :members, [context.sup, "__heartbeat"])
      name = Atom.to_string(b)
      assert {pid, facts} = Enum.find(members, fn {_pid, facts} -> facts.node == name end)
      assert node(pid) == b
      assert %{node_ref: _, timestamp: _, resources: _, env_vars: _, heartbeat_meta: _} = facts
      assert %{Counter => %{limit: 7}} = facts.capacity
    end

    test "get_cluster_nodes: all nodes with the facts in their heartbeats", %{a: a} = context do
      start(context, [heartbeat_meta: %{"version" => "1"}] ++ @soon)
      names = Enum.sort(Enum.map(context.nodes, &Atom.to_string/1))
      # From the heartbeats that were read from the store only.
      known =
        wait_until(fn ->
          known = call(a, Host, :get_cluster_nodes, [context.sup])
          if Enum.sort(Map.keys(known)) == names, do: known
        end)

      for {_node, facts} <- known, do: assert(%{heartbeat_meta: %{"version" => "1"}} = facts)
    end

    test "lookup_node_health: healthy, unknown, and stale after 30 s without a heartbeat",
         %{a: a} = context do
      {:ok, _} = start_host(a, Keyword.merge(context.opts, @soon))

      query = &%{supervisor: context.sup, node_str: &1}
      health = &call(a, LifecycleManager, :lookup_node_health, [query.(&1)])
      assert {:healthy, %{}} = health.(Atom.to_string(a))
      assert :unknown = health.("silent@host")

      # The heartbeat is written repeatedly: it may be too old when it is read.
      wait_until(fn ->
        put_heartbeat(context, "late@host", 20_000)
        match?({:healthy, _}, health.("late@host"))
      end)

      put_heartbeat(context, "gone@host", 40_000)
      wait_until(fn -> health.("gone@host") == :stale end)
    end
  end

  describe "find_eligible_nodes" do
    test "returns other nodes, as many as requested", %{a: a, b: b, c: c} = context do
      start(context)
      assert Enum.sort(eligible(context, a)) == Enum.sort([b, c])
      assert [_one] = eligible(context, a, limit: 1)
    end

    test "a full node is not eligible; of two with limits the less busy comes first", %{a: a, b: b, c: c} = context do
      start(context, [max_children: %{Counter => 2}] ++ @soon)
      start_server(context, b, Counter, "1")
      wait_until(fn -> eligible(context, a) == [c, b] end)
      start_server(context, b, Counter, "2")
      wait_until(fn -> eligible(context, a) == [c] end)
    end

    test "without limits the newest heartbeat comes first, for every caller", %{a: a, b: b, c: c} = context do
      start(context, heartbeat_interval_ms: 600_000, heartbeat_staleness_threshold_ms: 1_800_000)
      :ok = call(b, Host, :wait_until_ready, [context.sup, [timeout: 1_000]])
      [first, second] = eligible(context, a)

      stamps =
        for {_pid, facts} <- call(a, Group, :members, [context.sup, "__heartbeat"]),
            into: %{},
            do: {facts.node, facts.timestamp}

      assert stamps[Atom.to_string(first)] >= stamps[Atom.to_string(second)]
      assert Enum.sort([first, second]) == Enum.sort([b, c])
    end

    test "no storage read when the sticky levels are given", %{a: a, store: store} = context do
      start(context, quiet(context))
      SimulatedStore.reset_stats(store)
      for _ <- 1..10, do: eligible(context, a, key: "k", sticky_placement: nil)
      assert %{get: 0, list: 0} = SimulatedStore.stats(store)
    end
  end

  describe "sticky placement" do
    setup context do
      [x, y] = for place <- ["x", "y"], do: start_node(env: [{"PLACE", place}])
      sticky = [sticky_placement: %{Counter => [PLACE: 60_000, any: 0], Troublesome => [PLACE: 0, any: 0]}]
      context = %{context | nodes: [context.a, x, y]}
      start(context, sticky)
      {:ok, nodes: context.nodes, x: x, y: y}
    end

    test "nodes are ordered by level, whatever the delays", %{a: a, x: x, y: y} = context do
      levels = [%{env_var: "PLACE", value: "y"}, %{env_var: :any, value: :any}]
      names = %{x => "node_x", y => "node_y"}

      record(
        context,
        "find_eligible_nodes: a level with a delay before it",
        eligible(context, a, [sticky_placement: levels], Counter),
        names
      )

      assert eligible(context, a, [sticky_placement: levels], Troublesome) == [y, x]
      assert eligible(context, a, [sticky_placement: [%{env_var: "PLACE", value: "z"}]], Troublesome) == []
    end

    test "a server's levels are the values of the node where it was started", %{x: x} = context do
      start_server(context, x, Counter, "k")

      assert [%{env_var: "PLACE", value: "x"}, %{env_var: :any, value: :any}] =
               stored(context, "k").meta.sticky_placement
    end
  end

  describe "stop_discovery" do
    test "every other node learns of it, and no longer lists the node", %{a: a, b: b, c: c, store: store} = context do
      start(context)
      assert :ok = call(b, LifecycleManager, :stop_discovery, [context.sup])

      name = Atom.to_string(b)
      for node <- [a, c], do: wait_until(fn -> draining?(context, node, name) end)
      wait_until(fn -> eligible(context, a) == [c] end)

      assert %{"draining" => true} =
               SimulatedStore.peek(store, context.opts[:prefix] <> "__nodes/" <> name).body["heartbeat_meta"]

      %{ets_table: table} = call(b, Host, :__get_config__, [context.sup])
      assert [{:shutting_down, true}] = call(b, :ets, :lookup, [table, :shutting_down])
    end

    test "running servers continue to run", %{a: a} = context do
      start(context)
      pid = start_server(context, a, Counter, "k")
      :ok = call(a, LifecycleManager, :stop_discovery, [context.sup])
      assert 1 = ask(pid, :add_sync)
    end

    test "a second call is harmless: one more write, and heartbeats continue", %{a: a, store: store} = context do
      {:ok, _} =
        start_host(a, context.opts ++ [heartbeat_interval_ms: 600_000, heartbeat_staleness_threshold_ms: 1_800_000])

      for _ <- 1..2, do: assert(:ok = call(a, LifecycleManager, :stop_discovery, [context.sup]))
      SimulatedStore.reset_stats(store)
      assert :ok = call(a, LifecycleManager, :stop_discovery, [context.sup])
      assert %{put: 1} = SimulatedStore.stats(store)
    end

    test "heartbeats continue while draining, with the mark", %{a: a} = context do
      {:ok, _} = start_host(a, context.opts ++ @soon)
      :ok = call(a, LifecycleManager, :stop_discovery, [context.sup])
      %{timestamp: first} = own_heartbeat(context, a)
      wait_until(fn -> own_heartbeat(context, a).timestamp > first end)
      wait_until(fn -> draining?(context, a, Atom.to_string(a)) end)
    end

    test "exits when there is no such supervisor, and when the answer takes too long",
         %{a: a, store: store} = context do
      {relay, _} = Relay.start(a)
      stop = {Relay, :try, [{LifecycleManager, :stop_discovery, [context.sup]}]}
      assert {:exit, _noproc} = Relay.call(relay, stop)
      {:ok, _} = start_host(a, context.opts)
      SimulatedStore.pause(store)
      assert {:exit, {:timeout, _}} = Relay.call(relay, stop)
      SimulatedStore.resume(store)
    end
  end

  describe "a cordon" do
    # `DurableHandoff.Host.Mark` also relies on this: the row of `stop_discovery` by itself, inserted and
    # deleted by hand.
    test "the row alone refuses local starts and marks heartbeats; without it both are as before",
         %{a: a} = context do
      start(context, @soon)
      %{ets_table: table} = call(a, Host, :__get_config__, [context.sup])
      child = {Counter, key: "k", initial_state: %{}}
      # DurableServer's own limit is five seconds.
      start_here = fn -> call(a, Host, :start_child, [context.sup, child, [local_only: true, timeout: 60_000]]) end
      wait_until(fn -> call(a, :ets, :lookup, [table, :shutting_down]) == [] end)

      call(a, :ets, :insert, [table, {:shutting_down, true}])
      assert {:error, {:capacity_limit, :node_shutting_down}} = start_here.()
      wait_until(fn -> draining?(context, a, Atom.to_string(a)) end)

      call(a, :ets, :delete, [table, :shutting_down])
      assert {:ok, {_pid, _meta}} = start_here.()
      wait_until(fn -> not draining?(context, a, Atom.to_string(a)) end)
    end

    test "a row with another name in that table has no effect", %{a: a} = context do
      start(context, @soon)
      %{ets_table: table} = call(a, Host, :__get_config__, [context.sup])
      call(a, :ets, :insert, [table, {DurableHandoff.Host.Mark, :cordoned}])
      assert is_pid(start_server(context, a, Counter, "k"))
      assert call(a, Host, :ready?, [context.sup])
    end

    test "a heartbeat that another process of the node joins counts while it is the newest",
         %{a: a, b: b, c: c} = context do
      start(context, heartbeat_interval_ms: 600_000, heartbeat_staleness_threshold_ms: 1_800_000)
      own = own_heartbeat(context, b)
      meta = Map.put(own.heartbeat_meta || %{}, "draining", true)
      {relay, _} = Relay.start(b)
      group = fn function, more -> :ok = Relay.call(relay, {Group, function, [context.sup, "__heartbeat" | more]}) end
      join = fn facts, later_ms -> group.(:join, [%{facts | timestamp: own.timestamp + later_ms}]) end
      drains = %{own | heartbeat_meta: meta}
      join.(drains, 1)
      wait_until(fn -> eligible(context, a) == [c] end)

      # A second join replaces the first one.
      join.(own, 2)
      wait_until(fn -> Enum.sort(eligible(context, a)) == Enum.sort([b, c]) end)
      join.(drains, 3)
      wait_until(fn -> eligible(context, a) == [c] end)

      # An older heartbeat has no effect, and after leaving the node's own one counts.
      join.(drains, -1)
      wait_until(fn -> Enum.sort(eligible(context, a)) == Enum.sort([b, c]) end)
      group.(:leave, [])
      wait_until(fn -> match?(%{timestamp: _}, own_heartbeat(context, b)) end)
      assert Enum.sort(eligible(context, a)) == Enum.sort([b, c])
    end
  end

  defp eligible(context, node, opts \\ [], module \\ Counter) do
    opts = Keyword.merge([limit: 10, sticky_placement: nil], opts)
    call(node, LifecycleManager, :find_eligible_nodes, [context.sup, module, opts])
  end

  defp node_rows(node, table), do: for(row <- call(node, :ets, :tab2list, [table]), tuple_size(row) == 7, do: row)

  defp own_heartbeat(context, node) do
    name = Atom.to_string(node)
    [facts] = for {_pid, %{node: ^name} = facts} <- call(node, Group, :members, [context.sup, "__heartbeat"]), do: facts
    facts
  end

  defp draining?(context, node, name) do
    nodes = call(node, Host, :get_cluster_nodes, [context.sup])
    match?(%{^name => %{heartbeat_meta: %{"draining" => true}}}, nodes)
  end
end
