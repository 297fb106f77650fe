defmodule DurableHandoff.Executor.SessionTest do
  # The test acts as the Rust node: it registers the name to which a drain sends, receives its messages and
  # answers them. Time is an argument, so nothing here waits.
  use ExUnit.Case

  import DurableHandoff.EngineTerms, only: [view: 1]
  import DurableHandoff.Eventually, only: [await_name: 1]
  import DurableHandoff.LogEvents

  alias DurableHandoff.EngineTerms
  alias DurableHandoff.Executor.Session

  @moduletag :capture_log

  @me :durable_handoff
  @second 1_000_000
  @config EngineTerms.config(%{max_concurrency: 4, concurrency: :fixed})

  setup do
    await_name(@me)
    Process.register(self(), @me)
    :ok
  end

  describe "a drain that a Rust node coordinates" do
    test "sends open, servers and start, carries out orders, sends events, and closes" do
      {session, id} = running(3)
      session = received(session, {:orders, id, [start(0, "a@h"), start(1, "b@h")]})
      {orders, _wake, session} = poll(session)
      assert [{:start, 0, "a@h", 1, ms}, {:start, 1, "b@h", 1, _ms}] = orders
      assert ms in 1..15_000
      assert %{total: 3, in_flight: 2, pending: 1, moved: 0} = Session.progress(session)

      session = session |> finished(0, 1, {:moved, nil}) |> finished(1, 1, {:moved, nil})
      {[], _wake, session} = poll(session)
      assert sent(:events) == [id, [{:finished, 0, 1, {:moved, nil}, 5}, {:finished, 1, 1, {:moved, nil}, 5}]]

      session = received(session, {:orders, id, [start(2, "a@h")]})
      {[_order], _wake, session} = poll(session)
      {[], _wake, session} = session |> finished(2, 1, {:moved, nil}) |> poll()
      session = session |> received({:orders, id, [:finish]}) |> received({:report, id, report(3, 3, %{})})
      assert {[:finish], _wake, session} = poll(session)
      assert [^id] = sent(:drain_close)

      assert {%{total: 3, moved: 3, ended: :done, targets: [{"a@h", 2}, {"b@h", 1}], concurrency: %{last: 7}}, who} =
               Session.report(session, 9)

      assert who == %{executor: {:node, node()}, executors_lost: []}
    end

    test "shows what the node says that the drain waits for, until something is in flight" do
      {session, id} = running(2)
      assert %{waits_for: nil} = Session.progress(session)
      session = received(session, {:progress, id, %{waits_for: :limit}})
      assert %{waits_for: :limit} = Session.progress(session)

      assert %{waits_for: nil} =
               session |> received({:progress, id, %{waits_for: :of_a_later_release}}) |> Session.progress()

      session = received(session, {:orders, id, [start(0, "a@h")]})
      assert %{waits_for: nil, in_flight: 1} = Session.progress(session)
    end

    test "sends the node a message at least every 500 ms" do
      {session, id} = running(1)
      assert {[], wake, session} = Session.poll(session, @second)
      assert sent(:keepalive) == [id]
      assert wake == @second + 500_000
      session = Session.handle_message(session, @second, message({:progress, id, %{}}))
      {[], _wake, session} = Session.poll(session, @second + 499_999)
      refute_received {@me, 1, :keepalive, _id}
      {[], _wake, _session} = Session.poll(session, @second + 500_000)
      assert sent(:keepalive) == [id]
    end

    test "sends only the latest view, after earlier events" do
      {session, id} = running(1)
      {:ok, session} = Session.send_view(session, 0, view(["a@h"]))
      {:ok, session} = Session.send_view(session, 0, view(["a@h", "c@h"]))
      session = Session.handle_event(session, 0, {:node_down, "b@h"})
      {[], _wake, _session} = poll(session)
      assert sent(:events) == [id, [{:node_down, "b@h"}]]
      assert [^id, 1, 1, _now, [%{name: "a@h"}, %{name: "c@h"}]] = sent(:view)
      refute_received {@me, 1, :view, _id, _part, _parts, _now, _nodes}
    end

    test "sends a million servers in messages below 64 KB" do
      {session, id} = opened(1_000_000)
      {[], _wake, _session} = poll(session)
      assert_chunks(id, 0, 1_000_000)
    end

    test "takes the reasons of servers that stayed from the node, but counts moves itself" do
      {session, id} = running(2)
      {[_order], _wake, session} = session |> received({:orders, id, [start(0, "a@h")]}) |> poll()
      {[], _wake, session} = session |> finished(0, 1, {:moved, nil}) |> poll()
      session = session |> received({:orders, id, [:finish]}) |> received({:report, id, report(2, 1, %{capacity: 1})})
      assert {[:finish], _wake, session} = poll(session)
      assert {%{moved: 1, left: %{capacity: 1}}, %{executor: {:node, _name}}} = Session.report(session, 9)
    end

    test "replaces an unknown ending of a later release with its own, and keeps the rest of the report" do
      {session, id} = running(2)
      {[_order], _wake, session} = session |> received({:orders, id, [start(0, "a@h")]}) |> poll()
      {[], _wake, session} = session |> finished(0, 1, {:moved, nil}) |> poll()
      report = %{report(2, 1, %{capacity: 1}) | ended: :put_off}
      session = session |> received({:orders, id, [:finish]}) |> received({:report, id, report})
      assert {[:finish], _wake, session} = poll(session)

      assert {%{moved: 1, left: %{capacity: 1}, ended: :done, concurrency: %{last: 7}}, %{executors_lost: []}} =
               Session.report(session, 9)
    end

    test "takes the balance of a rebalance from the node, which knows the other nodes' rebalances" do
      shares = [%{name: "a@h", servers: 90, share: 100.0}, %{name: "b@h", servers: 110, share: 100.0}]
      balance = %{idle: :node_draining, excess: 7, before: shares, after: shares}
      assert balance_after(%{balance: balance}) == balance
      assert balance_after(%{balance: %{balance | idle: :of_a_later_release}}) == %{balance | idle: nil}
      assert %{idle: :unknown_load, excess: 0} = own = balance_after(%{})

      for wrong <- [nil, %{balance | excess: -1}, %{balance | after: [%{name: :a@h, servers: 1, share: 1.0}]}],
          do: assert(balance_after(%{balance: wrong}) == own)
    end

    test "carries out a cancel at once, by itself" do
      {session, id} = running(3)
      {[_order], _wake, session} = session |> received({:orders, id, [start(0, "a@h")]}) |> poll()
      session = Session.handle_event(session, 10, :cancel)
      assert sent(:drain_close) == [id]
      session = received(session, {:orders, id, [start(1, "a@h")]})
      assert {[], _wake, session} = poll(session)
      assert {[:finish], _wake, session} = session |> finished(0, 1, {:moved, nil}) |> poll()

      assert {%{moved: 1, left: %{cancelled: 2}, ended: :cancelled}, %{executor: {:node, _}, executors_lost: []}} =
               Session.report(session, 9)
    end

    test "ends with the report of the node just before the deadline, even if moves are in flight" do
      {session, id} = running(2)
      {[_order], _wake, session} = session |> received({:orders, id, [start(0, "a@h")]}) |> poll()
      session = received(session, {:orders, id, [:finish]}, 29_500_000)
      session = received(session, {:report, id, %{report(2, 0, %{deadline: 2}) | ended: :deadline}}, 29_500_000)
      assert {[:finish], _wake, session} = Session.poll(session, 29_500_000)
      assert [^id] = sent(:drain_close)
      assert {%{moved: 0, left: %{deadline: 2}, ended: :deadline}, who} = Session.report(session, 29_500_000)
      assert who == %{executor: {:node, node()}, executors_lost: []}
    end

    test "ends with the report of the node just before the deadline, and counts a move that ended meanwhile" do
      {session, id} = running(3)
      {[_, _], _wake, session} = session |> received({:orders, id, [start(0, "a@h"), start(1, "a@h")]}) |> poll()
      session = received(session, {:orders, id, [:finish]}, 29_500_000)
      session = Session.handle_event(session, 29_500_000, {:finished, 0, 1, {:moved, nil}, 5})
      session = received(session, {:report, id, %{report(3, 0, %{deadline: 3}) | ended: :deadline}}, 29_500_001)
      assert {[:finish], _wake, session} = Session.poll(session, 29_500_001)

      assert {%{moved: 1, left: %{deadline: 2}, ended: :deadline}, %{executors_lost: []} = who} =
               Session.report(session, 29_500_001)

      assert who.executor == {:node, node()}
    end

    test "releases a server whose move failed while the report was on its way, and ends then" do
      {session, id} = running(2)
      {[_order], _wake, session} = session |> received({:orders, id, [start(0, "a@h")]}) |> poll()
      session = received(session, {:orders, id, [:finish]}, 29_500_000)
      session = Session.handle_event(session, 29_500_000, {:finished, 0, 1, {:displaced, :target}, 5})
      session = received(session, {:report, id, %{report(2, 0, %{deadline: 2}) | ended: :deadline}}, 29_500_001)
      assert {[{:release, 0}], _wake, session} = Session.poll(session, 29_500_001)
      session = Session.handle_event(session, 29_500_002, {:released, 0})
      assert {[:finish], _wake, session} = Session.poll(session, 29_500_002)
      assert {%{left: %{deadline: 2}}, %{executors_lost: []}} = Session.report(session, 29_500_002)
    end

    test "ends at the deadline, whatever the node sends" do
      {session, id} = running(2)
      {[_order], _wake, session} = session |> received({:orders, id, [start(0, "a@h")]}) |> poll()
      session = Enum.reduce(1..29, session, &Session.handle_message(&2, &1 * @second, message({:progress, id, %{}})))
      assert {[:finish], _wake, session} = Session.poll(session, 30 * @second)
      assert {%{left: %{deadline: 2}}, %{executor: {:node, _name}}} = Session.report(session, 9)
    end
  end

  describe "the embedded engine takes over" do
    test "when the node refuses" do
      session = started(2)
      [id | _rest] = sent(:drain_open)
      session = lost(session, fn session -> received(session, {:refuse, id, {:full, "drains", 9}}) end)
      assert {[{:start, 0, _, 1, _}, {:start, 1, _, 1, _}], _wake, session} = poll(session)
      assert executors_lost(session) == [{node(), {:refused, {:full, "drains", 9}}}]
    end

    test "when the node does not speak this version" do
      session = started(1)
      session = lost(session, &received(&1, {:refuse, nil, {:version, 1, 2}}))
      assert executors_lost(session) == [{node(), {:refused, {:version, 1, 2}}}]
    end

    test "when the node speaks another version" do
      {session, id} = running(1)
      session = lost(session, &Session.handle_message(&1, 0, {@me, 2, :orders, id, :of_the_future}))
      assert executors_lost(session) == [{node(), {:not_understood, {:version, 2}}}]
    end

    test "two seconds after the node's last message, with the known progress of each server" do
      {session, id} = running(6)
      orders = for id <- 0..3, do: start(id, "a@h")
      {[_, _, _, _], _wake, session} = session |> received({:orders, id, orders}) |> poll()
      session = session |> finished(0, 1, {:moved, nil}) |> finished(1, 1, {:displaced, :server})
      session = finished(session, 2, 1, :stopping)
      {[], wake, session} = session |> quiet(2 * @second) |> Session.poll(2 * @second - 1)
      assert wake == 2 * @second

      {{orders, _wake, session}, log} = collect(fn -> Session.poll(session, 2 * @second) end)
      assert [{:warning, :executor_lost, %{supervisor: Sup, reason: :silent}}] = log
      # First the displaced server, at another target; then one that was never tried; the others are already
      # stopped.
      assert [{:start, 1, "b@h", 2, _}, {:start, 4, _, 1, _}] = orders

      # Orders that the node sends now are late.
      session = received(session, {:orders, id, [start(5, "a@h")]})
      session = session |> finished(3, 1, {:moved, nil}) |> Session.handle_event(3 * @second, {:stopped, 2})
      assert {[{:start, 2, _, 2, _}, {:start, 5, _, 1, _}], _wake, session} = Session.poll(session, 3 * @second)

      session =
        Enum.reduce([{1, 2}, {4, 1}, {2, 2}, {5, 1}], session, fn {id, n}, s -> finished(s, id, n, {:moved, nil}) end)

      assert {[:finish], _wake, session} = Session.poll(session, 3 * @second)

      assert {%{total: 6, moved: 6, retried: 2, ended: :done, gap_us: %{count: 6}, attempts: 8}, who} =
               Session.report(session, 9)

      assert who == %{executor: :embedded, executors_lost: [{node(), :silent}]}
    end

    test "not after a pause of this VM, unless a second one follows without a message in between" do
      {session, id} = running(2)
      {[], wake, session} = session |> quiet(@second) |> Session.poll(5 * @second)
      assert wake == 5 * @second + 500_000
      # A message that the node sent meanwhile is received now.
      session = Session.handle_message(session, 5 * @second, message({:progress, id, %{}}))
      {[], _wake, session} = Session.poll(session, 10 * @second)

      {{[_, _], _wake, session}, _log} = collect(fn -> Session.poll(session, 15 * @second) end)
      assert executors_lost(session) == [{node(), :silent}]
    end

    test "when the node dies, without waiting" do
      node = spawn(fn -> receive(do: (:never -> :ok)) end)
      {session, id} = running(2, node)
      {[_order], _wake, session} = session |> received({:orders, id, [start(0, "a@h")]}) |> poll()
      Process.exit(node, :kill)
      assert_receive {:DOWN, _monitor, :process, ^node, :killed} = down
      session = lost(session, &Session.handle_message(&1, 0, down))
      assert {[{:start, 1, _, 1, _}], _wake, session} = poll(session)
      assert executors_lost(session) == [{node(), {:down, :killed}}]
    end

    test "after orders that were received before the loss are carried out" do
      {session, id} = running(2)
      session = received(session, {:orders, id, [start(1, "a@h")]})
      session = lost(session, &received(&1, {:refuse, id, :stopping}))
      assert {[{:start, 1, "a@h", 1, _}, {:start, 0, _, 1, _}], _wake, _session} = poll(session)
    end

    for {what, order} <- [
          {"a server that does not exist", {:start, 9, "a@h", 1, 1_000}},
          {"a target outside of the view", {:start, 1, "z@h", 1, 1_000}},
          {"a second attempt before the first", {:start, 1, "a@h", 2, 1_000}},
          {"a server that is under way", {:start, 0, "a@h", 1, 1_000}},
          {"the release of a server that runs here", {:release, 1}}
        ] do
      test "when the node sends an invalid order: #{what}" do
        {session, id} = running(3)
        {[_order], _wake, session} = session |> received({:orders, id, [start(0, "a@h")]}) |> poll()
        order = unquote(Macro.escape(order))
        session = lost(session, &received(&1, {:orders, id, [order, start(2, "a@h")]}))
        assert executors_lost(session) == [{node(), {:invalid_order, order}}]
        assert {[{:start, 1, _, 1, _}, {:start, 2, _, 1, _}], _wake, _session} = poll(session)
      end
    end

    test "when the node orders more concurrent stops than max_concurrency" do
      {session, id} = running(9)
      session = lost(session, &received(&1, {:orders, id, for(n <- 0..8, do: start(n, "a@h"))}))
      assert {[_, _, _, _], _wake, session} = poll(session)
      assert [{_name, {:invalid_order, {:start, 4, "a@h", 1, 1_000}}}] = executors_lost(session)
    end

    test "when the node ends the drain while moves are in flight" do
      {session, id} = running(2)
      {[_order], _wake, session} = session |> received({:orders, id, [start(0, "a@h")]}) |> poll()
      session = received(session, {:orders, id, [:finish]})
      session = lost(session, &received(&1, {:report, id, report(2, 0, %{no_target: 2})}))
      assert {[{:start, 1, _, 1, _}], _wake, session} = poll(session)
      assert executors_lost(session) == [{node(), {:invalid_order, :finish}}]
    end

    test "when the numbers in the node's report are inconsistent" do
      {session, id} = running(2)
      session = received(session, {:orders, id, [:finish]})
      session = lost(session, &received(&1, {:report, id, report(2, 1, %{})}))
      assert {[_, _], _wake, session} = poll(session)
      assert executors_lost(session) == [{node(), {:invalid_order, :finish}}]
    end

    for {what, message} <- [
          {"orders before the start", {:orders, :id, []}},
          {"a report before the end",
           {:report, :id, %{total: 1, moved: 0, left: %{}, concurrency: %{last: 1}, ended: :done}}}
        ] do
      test "when the node sends #{what}" do
        session = started(1)
        [id | _rest] = sent(:drain_open)
        message = unquote(Macro.escape(message)) |> put_elem(1, id)
        session = lost(session, &received(&1, message))
        assert [{_name, {:out_of_order, _kind}}] = executors_lost(session)
      end
    end

    test "when the node sends an unreadable message" do
      {session, id} = running(1)
      session = lost(session, &received(&1, {:orders, id, [:start | :improper]}))
      assert executors_lost(session) == [{node(), {:not_understood, {:field, :orders}}}]
    end

    test "when there is no connection to send to" do
      session = started(1)
      session = put_in(session.link.to, {@me, :nobody@nowhere})
      session = put_in(session.link.queue, [:anything])
      session = lost(session, fn session -> session |> poll() |> elem(2) end)
      assert executors_lost(session) == [{node(), :noconnection}]
    end
  end

  test "the embedded engine does not take over after messages of another drain, or unrelated ones" do
    {session, id} = running(2)

    for message <- [{:refuse, id + 1, :stopping}, {:orders, id + 1, [start(0, "a@h")]}],
        do: assert(received(session, message) == session)

    for message <- [:hello, {@me}, {:EXIT, self(), :x}, {:DOWN, make_ref(), :process, self(), :x}],
        do: assert(Session.handle_message(session, 0, message) == session)
  end

  test "the embedded engine takes over only if no other Rust node can replace one that was lost early without an order" do
    rust_nodes = [{:first@h, self(), "1"}, {:second@h, self(), "1"}, {:third@h, self(), "1"}]
    {:ok, session} = Session.start(Sup, job(2), rust_nodes, 0)
    {[], _wake, session} = poll(session)
    [first | _rest] = sent(:drain_open)
    session = lost(session, &received(&1, {:refuse, first, :stopping}))
    {[], _wake, session} = poll(session)
    [second | _rest] = sent(:drain_open)
    assert second != first
    session = quiet(session, 2 * @second)
    {{[_, _], _wake, session}, _log} = collect(fn -> Session.poll(session, 2 * @second) end)
    assert executors_lost(session) == [first@h: {:refused, :stopping}, second@h: :silent]
    refute_received {@me, 1, :drain_open, _id, _pid, _spec}
  end

  test "a rebalance whose Rust node is lost in the middle starts nothing more, and a drain goes on" do
    servers = %{"a@h" => 0, "b@h" => 0, "source@h" => 10}
    view = servers |> Map.keys() |> view()
    view = %{view | nodes: for(node <- view.nodes, do: %{node | servers: servers[node.name]})}

    for {goal, kind, more} <- [{:drain, :drain_open, 1..9}, {:rebalance, :rebalance_open, []}] do
      config = Map.merge(@config, %{goal: goal, tolerance: 0.1, min_servers: 1, max_concurrency: 50})
      {:ok, session} = Session.start(Sup, %{job(10) | config: config, view: view}, [{node(), self(), "1.0"}], 0)
      {[], _wake, session} = poll(session)
      [id | _rest] = sent(kind)
      {[], _wake, session} = session |> received({:opened, id}) |> poll()

      {[_one], _wake, session} =
        session |> received({:started, id}) |> received({:orders, id, [start(0, "a@h")]}) |> poll()

      session = lost(session, &received(&1, {:refuse, id, :stopping}))
      {orders, _wake, session} = session |> finished(0, 1, {:moved, nil}) |> poll()
      assert {goal, for({:start, id, _target, 1, _ms} <- orders, do: id)} == {goal, Enum.to_list(more)}
      {report, %{executor: :embedded}} = Session.report(session, 9)
      assert report.moved == 1
      if goal == :rebalance, do: assert(%{ended: :done, balance: %{idle: :coordinator_lost}} = report)
    end
  end

  test "the Rust node that replaces another one gets the latest view" do
    {:ok, session} = Session.start(Sup, job(1), [{:first@h, self(), "1"}, {:second@h, self(), "1"}], 0)
    {[], _wake, session} = poll(session)
    [first | _rest] = sent(:drain_open)
    {:ok, session} = Session.send_view(session, 0, %{view(["c@h"]) | now_ms: 1_001_000})
    session = lost(session, &received(&1, {:refuse, first, :stopping}))
    {[], _wake, session} = poll(session)
    [second | _rest] = sent(:drain_open)
    {[], _wake, _session} = session |> received({:opened, second}) |> poll()
    assert [^second, 1, 1, 1_001_000, [%{name: "c@h"}]] = sent(:view)
  end

  test "the embedded engine decides from the start when there is no Rust node" do
    {:ok, session} = Session.start(Sup, job(1), [], 0)
    assert {[{:start, 0, _, 1, _}], _wake, session} = poll(session)
    assert {[:finish], _wake, session} = session |> finished(0, 1, {:moved, nil}) |> poll()
    assert {%{moved: 1}, %{executor: :embedded, executors_lost: []}} = Session.report(session, 9)
    refute_received {@me, 1, _kind, _id}
  end

  # Opens and starts the drain on the side of the Rust node, up to `started`.
  defp running(count, pid \\ self()) do
    {session, id} = opened(count, pid)
    {[], _wake, session} = poll(session)
    assert [^id, 0, records] = sent(:servers)
    assert byte_size(records) == 12 * count
    assert [^id, 1, 1, 1_000_000, [%{name: "a@h"}, %{name: "b@h"}]] = sent(:view)
    # The Rust node is to end the drain before the deadline.
    assert [^id, 29_500] = sent(:drain_start)
    {received(session, {:started, id}), id}
  end

  # The balance in the report of a rebalance that the Rust node ends with `extra` in its report.
  defp balance_after(extra) do
    job = update_in(job(1).config, &Map.merge(&1, %{goal: :rebalance, tolerance: 0.1, min_servers: 1}))
    {:ok, session} = Session.start(Sup, job, [{node(), self(), "1.0"}], 0)
    {[], _wake, session} = poll(session)
    [id | _rest] = sent(:rebalance_open)
    {[], _wake, session} = session |> received({:opened, id}) |> poll()
    session = received(session, {:started, id})
    report = Map.merge(report(1, 0, %{kept: 1}), extra)
    session = session |> received({:orders, id, [:finish]}) |> received({:report, id, report})
    assert {[:finish], _wake, session} = poll(session)
    assert {%{balance: balance}, %{executors_lost: []}} = Session.report(session, 9)
    balance
  end

  # Polls every 500 ms, as a drain does, and expects no orders before `until`.
  defp quiet(session, until) do
    Enum.reduce(500_000..(until - 1)//500_000, session, fn now, session ->
      {[], _wake, session} = Session.poll(session, now)
      session
    end)
  end

  defp opened(count, pid \\ self()) do
    session = started(count, pid)
    me = self()

    assert [id, ^me, %{supervisor: "Sup", storage: "0f", count: ^count, modules: ["M"], config: @config}] =
             sent(:drain_open)

    {received(session, {:opened, id}), id}
  end

  defp started(count, pid \\ self()) do
    {:ok, session} = Session.start(Sup, job(count), [{node(), pid, "1.0"}], 0)
    {[], _wake, session} = poll(session)
    session
  end

  defp poll(session), do: Session.poll(session, 0)
  defp received(session, what, now \\ 0), do: Session.handle_message(session, now, message(what))
  defp message(what), do: List.to_tuple([@me, 1 | Tuple.to_list(what)])
  defp start(id, target), do: {:start, id, target, 1, 1_000}

  defp finished(session, id, attempt, outcome),
    do: Session.handle_event(session, 10, {:finished, id, attempt, outcome, 5})

  defp lost(session, work) do
    {session, log} = collect(fn -> work.(session) end)
    assert [{:warning, :executor_lost, %{supervisor: Sup}}] = log
    session
  end

  defp executors_lost(session) do
    {_report, who} = Session.report(session, 9)
    who.executors_lost
  end

  # The fields of the next message of that kind.
  defp sent(kind) do
    messages = Process.info(self(), :messages) |> elem(1)
    message = Enum.find(messages, &match?([@me, 1, ^kind | _fields], is_tuple(&1) && Tuple.to_list(&1)))
    assert message, "no #{kind} among #{inspect(messages, limit: 50)}"
    assert_received ^message
    message |> Tuple.to_list() |> Enum.drop(3)
  end

  defp assert_chunks(_id, total, total), do: :ok

  defp assert_chunks(id, first, total) do
    assert_received {@me, 1, :servers, ^id, ^first, records} = message
    assert :erlang.external_size(message) < 65_536
    assert_chunks(id, first + div(byte_size(records), 12), total)
  end

  defp report(total, moved, left),
    do: %{total: total, moved: moved, left: left, concurrency: %{last: 7, highest: 9}, ended: :done}

  defp job(count) do
    %{
      supervisor: "Sup",
      storage: "0f",
      modules: ["M"],
      config: @config,
      entries: List.duplicate({0, 0, 0}, count),
      view: view(["a@h", "b@h"])
    }
  end
end
