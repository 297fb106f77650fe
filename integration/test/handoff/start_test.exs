defmodule Handoff.StartTest do
  @moduledoc "What happens when a supervisor with handoff starts: options, heartbeats, warnings."

  use HandoffCase, nodes: 2

  @moduletag :capture_log

  describe "wrong options" do
    test "of DurableServer are passed to DurableServer", context do
      Process.flag(:trap_exit, true)
      start = {DurableHandoff.Supervisor, :start_link, [context.opts ++ [no_such_option: 1]]}
      assert inspect(Relay.try(start)) =~ "no_such_option"
    end

    test "a misspelt handoff_on_shutdown raises with the right name", context do
      assert_raise ArgumentError, ~r/:handoff_on_shutdwn, did you mean :handoff_on_shutdown\?/, fn ->
        DurableHandoff.Supervisor.start_link(context.opts ++ [handoff_on_shutdwn: true])
      end
    end

    test "a second supervisor with the same name returns {:already_started, pid}", %{a: a} = context do
      start_handoff(context, a)
      host = call(a, DurableHandoff.Host, :whereis, [context.sup])
      assert {:error, reason} = start_children(a, [{DurableHandoff.Supervisor, context.opts}])
      assert {:already_started, host} == find(reason, :already_started)
      assert call(a, DurableHandoff.Host, :whereis, [context.sup]) == host
    end

    test "a missing or impossible name raises", context do
      assert_raise ArgumentError, ~r/:name got nil, expected the name/, fn ->
        DurableHandoff.Supervisor.start_link(Keyword.delete(context.opts, :name))
      end
    end

    test "of a Drainer raise", context do
      assert_raise ArgumentError, ~r/:supervisor got "x", expected the name/, fn ->
        DurableHandoff.Drainer.child_spec(supervisor: "x")
      end

      assert_raise ArgumentError, ~r/unknown options \[:timeout_ms\]/, fn ->
        DurableHandoff.Drainer.start_link(supervisor: context.sup, timeout_ms: 5)
      end
    end

    test "a Drainer that starts before its supervisor fails, and says where it belongs", context do
      assert_raise ArgumentError, ~r/no DurableServer.Supervisor named .* runs on this node.*right after it/s, fn ->
        DurableHandoff.Drainer.start_link(supervisor: context.sup)
      end
    end

    test "a second Drainer for the same supervisor is refused", context do
      start_supervised!({DurableHandoff.Supervisor, context.opts ++ [handoff_on_shutdown: true]})
      assert {:error, {:already_started, _pid}} = DurableHandoff.Drainer.start_link(supervisor: context.sup)
      stop_supervised!({DurableHandoff.Supervisor, context.sup})
    end
  end

  test "the Drainer's shutdown time is longer than a drain may take" do
    assert %{shutdown: shutdown} =
             DurableHandoff.Drainer.child_spec(supervisor: Sup, handoff_on_shutdown: [timeout_ms: 90_000])

    assert shutdown > 90_000
  end

  describe "the shutdown budget" do
    test "counts the shutdown times of children that stop before the Drainer", %{a: a} = context do
      quick = Supervisor.child_spec({HeldChild, {self(), 5_000}}, id: :quick)
      slow = Supervisor.child_spec({HeldChild, {self(), 40_000}}, id: :slow)
      ours = {DurableHandoff.Supervisor, context.opts ++ [handoff_on_shutdown: true]}
      nested = %{id: :nested, start: {Supervisor, :start_link, [[slow], [strategy: :one_for_one]]}, type: :supervisor}
      {:ok, app} = start_children(a, [quick, ours, nested, Supervisor.child_spec(quick, id: :quick_too)])
      children = call(a, Supervisor, :which_children, [:"#{context.sup}_handoff"])
      {_id, shutdown, :worker, _modules} = List.keyfind(children, DurableHandoff.Drainer.Shutdown, 0)
      {:dictionary, dictionary} = call(a, Process, :info, [shutdown, :dictionary])
      assert call(a, DurableHandoff.Budget, :before_ms, [shutdown, dictionary[:"$ancestors"]]) == 45_000

      stopping = Task.async(fn -> stop_children(a, app) end)

      for _child <- 1..3 do
        assert_receive {:stopping, ^a, child}, 60_000
        send(child, :go_on)
      end

      assert :ok = await_task(stopping)
    end

    @tag guarantee: "Nothing is lost that a graceful shutdown would have kept"
    test "keeps the time that a graceful shutdown of few servers at a time takes", %{a: a} = context do
      handoff = [timeout_ms: 30_000, shutdown_budget_ms: 30_000]
      listen_to_log(context, a)
      app = start_handoff(context, a, handoff_on_shutdown: handoff, graceful_shutdown_concurrency: 2)
      assert {:warning, _metadata} = await_log(a, :budget_too_small)
      start_servers(context, a, 20)
      :ok = stop_children(a, app)
      # Ten writes, one after the other, twice as long as they are expected to take.
      assert {:warning, %{graceful_ms: 1_000}} = await_log(a, :drain_cut)
    end

    test "is reduced by the time since the node was told to stop", %{b: b} = context do
      leaving = start_node()
      {:ok, _apps} = call(leaving, Application, :ensure_all_started, [:durable_handoff])
      handoff = [timeout_ms: 3_600_000, shutdown_budget_ms: 3_602_000]
      start_handoff(context, leaving, handoff_on_shutdown: handoff)
      start_handoff(context, b)
      await_heartbeats([leaving, b], context.sup)
      start_server(context, leaving, Troublesome, "stuck", %{count: 0})
      await_on(context, b, "stuck", leaving)
      Troublesome.arm(leaving, "stuck", :terminate, :hang)

      listen_to_telemetry(leaving)
      # An hour ago, plus the seconds that are left for the drain.
      noted_us = call(leaving, DurableHandoff.Clock, :now_us, []) - 3_594_000_000
      call(leaving, :persistent_term, :put, [DurableHandoff.Stopping.Moment, noted_us])
      stopping = Task.async(fn -> stop(leaving) end)
      assert_receive {:event, [:durable_handoff, :shutdown, :start], given, _metadata}, 60_000

      given = given.deadline - given.monotonic_time
      given_ms = call(leaving, System, :convert_time_unit, [given, :native, :millisecond])
      assert given_ms in 1..7_500

      assert_receive {:event, [:durable_handoff, :drain, :stop], _measurements, %{report: report}}, 60_000
      assert report.ended == :deadline
      Troublesome.disarm(leaving, "stuck", :terminate)
      assert :ok = await_task(stopping)
    end
  end

  describe "heartbeats" do
    test "carry release, start time and number of servers, and keep the user's own meta",
         %{a: a, b: b} = context do
      soon = [heartbeat_interval_ms: 100]
      start_handoff(context, a, soon ++ [heartbeat_meta: %{"colour" => "blue"}, handoff_on_shutdown: [generation: "7"]])
      start_handoff(context, b, soon)
      start_servers(context, a, 3)

      meta = wait_until(fn -> meta_with_servers(context, b, a, 3) end)
      assert %{"colour" => "blue", "durable_handoff" => %{"generation" => "7", "started_at" => started_at}} = meta
      assert started_at == div(call(a, Host, :node_ref, [context.sup]), 1_000)

      %{nodes: nodes} = call(b, DurableHandoff.Host.View, :build, [context.sup, [], []])
      name = Atom.to_string(a)

      assert [%{generation: "7", servers: 3, started_at_ms: ^started_at}] =
               for(%{name: ^name} = node <- nodes, do: node)
    end

    test "call a heartbeat_meta function each time, and keep its result", %{a: a} = context do
      meta = &HandoffCase.heartbeat_meta/0
      call(a, Application, :put_env, [:handoff_integration, :colour, "red"])
      start_handoff(context, a, heartbeat_interval_ms: 100, heartbeat_meta: meta)
      wait_until(fn -> match?(%{"colour" => "red", "durable_handoff" => %{}}, own_meta(context, a)) end)
      call(a, Application, :put_env, [:handoff_integration, :colour, "green"])
      wait_until(fn -> match?(%{"colour" => "green"}, own_meta(context, a)) end)
    end

    test "keep a user's entry under this library's key", %{a: a} = context do
      start_handoff(context, a, heartbeat_meta: %{"durable_handoff" => "mine"})
      assert wait_until(fn -> own_meta(context, a) end)["durable_handoff"] == "mine"
    end

    test "have no addition without handoff", %{a: a} = context do
      start_handoff(context, a, handoff_on_shutdown: nil, heartbeat_meta: %{"colour" => "blue"})
      assert wait_until(fn -> own_meta(context, a) end) == %{"colour" => "blue"}
    end

    test "of a node without the library: it is a target like any other", %{a: a, b: b} = context do
      start_handoff(context, a)
      {:ok, _app} = start_host(b, context.opts)
      await_heartbeats([a, b], context.sup)
      keys = start_servers(context, a, 3)
      assert {:ok, %{moved: 3}} = drain(context, a)
      assert_all_run_on(context, keys, [b])
    end

    test "of other nodes with invalid content exclude only those nodes", %{a: a, b: b} = context do
      start_cluster(context)
      keys = start_servers(context, a, 3)
      now = System.system_time(:millisecond)

      odd = {"odd", 1, now, %{total: 1}, [], "x", %{"durable_handoff" => 7}}

      for row <- [{0, :x, now, 1, 2, 3, 4}, odd],
          do: call(a, :ets, :insert, [:"durable_server_heartbeats_#{context.sup}", row])

      assert {:ok, %{moved: 3}} = drain(context, a)
      assert_all_run_on(context, keys, [b])
    end
  end

  defp own_meta(context, node), do: meta_of(context, node, node)

  defp meta_with_servers(context, node, of, servers) do
    with %{"durable_handoff" => %{"servers" => ^servers}} = meta <- meta_of(context, node, of),
         do: meta,
         else: (_ -> nil)
  end

  defp meta_of(context, node, of) do
    call(node, Host, :get_cluster_nodes, [context.sup])[Atom.to_string(of)][:heartbeat_meta]
  end

  # The tuple with this tag, anywhere in the error of a failed start.
  defp find(term, tag) when is_tuple(term) and elem(term, 0) == tag, do: term
  defp find(term, tag) when is_tuple(term), do: term |> Tuple.to_list() |> find(tag)
  defp find(list, tag) when is_list(list), do: Enum.find_value(list, &find(&1, tag))
  defp find(_other, _tag), do: nil
end
