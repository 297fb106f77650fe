defmodule Node.EndpointTest do
  @moduledoc "The endpoint and drains with a simulated Rust node: a process on another node."

  use HandoffCase, nodes: 3

  alias DurableHandoff.RustNodes
  alias DurableHandoff.Wire.Endpoint

  # The third node is not a member: it runs the process that acts as the Rust node.
  setup %{nodes: [a, b, fake]} = context do
    for node <- [a, b], do: {:ok, _apps} = call(node, Application, :ensure_all_started, [:durable_handoff])
    player = call(fake, FakeRustNode, :start, [self(), [silent: context[:silent] == true]])
    # The process of the previous test has ended. Nodes that knew it notice that soon.
    for node <- [a, b], do: wait_until(fn -> call(node, RustNodes, :all, []) == [] end)
    {:ok, %{context | nodes: [a, b]} |> Map.merge(%{a: a, b: b, fake: fake, player: player})}
  end

  describe "an announcement" do
    test "is valid until it is withdrawn", %{a: a, fake: fake, player: player} do
      announce(a, player)
      assert_receive {:played, {:durable_handoff, 1, :welcome, endpoint, %{release: release}}}
      assert {node(endpoint), is_binary(release)} == {a, true}
      assert call(a, RustNodes, :all, []) == [{fake, player, "1.0"}]

      announce(a, player, false)
      wait_until(fn -> call(a, RustNodes, :all, []) == [] end)
    end

    test "ends when the Rust node does", %{a: a, player: player} do
      announce(a, player)
      wait_until(fn -> call(a, RustNodes, :all, []) != [] end)
      Process.exit(player, :kill)
      wait_until(fn -> call(a, RustNodes, :all, []) == [] end)
    end

    test "is replaced by a newer one, and ends only with that one", %{a: a, fake: fake, player: old} do
      announce(a, old)
      wait_until(fn -> call(a, RustNodes, :all, []) == [{fake, old, "1.0"}] end)
      Process.exit(old, :kill)
      new = call(fake, FakeRustNode, :start, [self()])
      announce(a, new)
      wait_until(fn -> call(a, RustNodes, :all, []) == [{fake, new, "1.0"}] end)
    end

    test "is known again after the endpoint has restarted", %{a: a, player: player} do
      announce(a, player)
      wait_until(fn -> call(a, RustNodes, :all, []) != [] end)
      endpoint = call(a, Process, :whereis, [DurableHandoff.Agent])
      call(a, Process, :exit, [endpoint, :kill])
      wait_until(fn -> call(a, Process, :whereis, [DurableHandoff.Agent]) not in [nil, endpoint] end)
      assert call(a, RustNodes, :all, []) == []
      announce(a, player)
      wait_until(fn -> call(a, RustNodes, :all, []) != [] end)
    end
  end

  test "an unreadable message changes nothing and is counted", %{a: a} do
    before = call(a, Endpoint, :info, [])

    for odd <- [:hello, {:durable_handoff, 1, :announce, :no_pid, %{}}, {:durable_handoff, 1, :never_heard_of}, %{}],
        do: send_to(a, odd)

    GenServer.cast({DurableHandoff.Agent, a}, :odd)
    wait_until(fn -> call(a, Endpoint, :info, []).ignored >= before.ignored + 5 end)
    assert call(a, RustNodes, :all, []) == []
  end

  test "a message of another version is refused, and the refusal names both versions", %{a: a} do
    send_to(a, {:durable_handoff, 2, :announce, self(), :of_the_future})
    assert_receive {:durable_handoff, 1, :refuse, nil, {:version, 2, 1}}
    assert call(a, Endpoint, :info, []).version >= 1
  end

  describe "an operator" do
    test "learns which supervisors run here", %{a: a} = context do
      start_cluster(context, handoff_on_shutdown: [generation: "7.1"])
      start_servers(context, a, 3)
      send_to(a, {:durable_handoff, 1, :describe, 5, self()})
      assert_receive {:durable_handoff, 1, :description, 5, %{release: _, now_ms: now_ms, supervisors: supervisors}}
      assert is_integer(now_ms)
      name = inspect(context.sup)
      assert [info] = for(info <- supervisors, info.name == name, do: info)
      assert %{generation: "7.1", servers: 3, draining: false, started_at_ms: started} = info
      assert is_integer(started)
    end

    test "gets a plan, then a drain with progress and report", %{a: a, b: b} = context do
      start_cluster(context)
      start_servers(context, a, 3)
      ask(a, 1, context, dry_run: true, plan: true)
      target = Atom.to_string(b)

      assert_receive {:durable_handoff, 1, :plan, 1, %{total: 3, moves: 3, targets: [{^target, 3}], left: left}}
      assert left == %{}

      # A command of a release without plans asks for none.
      ask(a, 6, context, dry_run: true)
      assert_receive {:durable_handoff, 1, :drain_done, 6, %{total: 3, moved: 3, targets: [{^target, 3}], ended: :done}}

      assert placement(context) |> Map.values() |> Enum.uniq() == [a]

      hold_reads(context)
      ask(a, 2, context, [])
      assert_receive {:durable_handoff, 1, :drain_step, 2, %{total: 3, in_flight: 3, finished: false}}
      SimulatedStore.resume(context.store)
      assert_receive {:durable_handoff, 1, :drain_done, 2, %{moved: 3, left: left, gap_us: %{count: 3}}}
      assert left == %{}
    end

    test "gets the progress of a drain while servers store their states", %{a: a} = context do
      # While one server waits for its turn to store, storing does not end.
      start_cluster(context, graceful_shutdown_concurrency: 2)
      start_unsynced(context, a, 3)
      hold(context, [:put])
      ask(a, 1, context, timeout_ms: 60_000)
      assert_receive {:durable_handoff, 1, :drain_step, 1, %{total: 3, pending: 3, in_flight: 0, moved: 0}}
      await_held(context, 2)
      assert {:ok, %{state: :draining, progress: nil}} = status(context, a)
      SimulatedStore.resume(context.store)
      assert_receive {:durable_handoff, 1, :drain_done, 1, %{moved: 3}}
    end

    test "cordons and uncordons one supervisor, or all of a node", %{a: a} = context do
      start_cluster(context)
      name = inspect(context.sup)
      send_to(a, {:durable_handoff, 1, :cordon_request, 1, self(), %{supervisor: name, cordon: true}})
      assert_receive {:durable_handoff, 1, :cordon_done, 1, %{supervisors: [^name]}}
      assert %{draining: true, cordoned: true} = described(a, name)
      send_to(a, {:durable_handoff, 1, :cordon_request, 2, self(), %{supervisor: nil, cordon: false}})
      assert_receive {:durable_handoff, 1, :cordon_done, 2, %{supervisors: names}}
      assert name in names
      assert %{draining: false, cordoned: false} = described(a, name)
    end

    test "is told which supervisor of a node could not be uncordoned, and the others are", %{a: a} = context do
      start_cluster(context)
      :ok = call(a, DurableHandoff, :cordon, [context.sup])
      draining = another_supervisor(context)
      start_cluster(draining)
      start_servers(draining, a, 1)
      hold_reads(draining)
      ask(a, 1, draining, [])
      assert_receive {:durable_handoff, 1, :drain_step, 1, %{in_flight: 1}}
      send_to(a, {:durable_handoff, 1, :cordon_request, 2, self(), %{supervisor: nil, cordon: false}})
      assert_receive {:durable_handoff, 1, :refuse, 2, {:invalid, [failed, done]}}
      assert failed =~ inspect(draining.sup) and done =~ inspect(context.sup)
      assert %{draining: false, cordoned: false} = described(a, inspect(context.sup))
      SimulatedStore.resume(context.store)
      assert_receive {:durable_handoff, 1, :drain_done, 1, %{moved: 1}}
    end

    test "gets a suggestion for a misspelt supervisor, and cannot uncordon a draining one", %{a: a} = context do
      start_cluster(context)
      name = inspect(context.sup)
      what = %{supervisor: String.slice(name, 0..-2//1), cordon: true}
      send_to(a, {:durable_handoff, 1, :cordon_request, 1, self(), what})
      assert refusal(1) =~ "did you mean #{name}?"

      start_servers(context, a, 1)
      hold_reads(context)
      ask(a, 2, context, [])
      assert_receive {:durable_handoff, 1, :drain_step, 2, %{in_flight: 1}}
      send_to(a, {:durable_handoff, 1, :cordon_request, 3, self(), %{supervisor: name, cordon: false}})
      assert_receive {:durable_handoff, 1, :refuse, 3, {:invalid, [_why]}}
      SimulatedStore.resume(context.store)
      assert_receive {:durable_handoff, 1, :drain_done, 2, %{moved: 1}}
    end

    test "moves a server, or gets the reason why not", %{a: a, b: b} = context do
      start_cluster(context)
      start_servers(context, a, 1)
      what = %{supervisor: inspect(context.sup), key: "s1", to: Atom.to_string(b), timeout_ms: nil}
      send_to(a, {:durable_handoff, 1, :move_request, 1, self(), what})
      {from, to} = {Atom.to_string(a), Atom.to_string(b)}
      assert_receive {:durable_handoff, 1, :move_done, 1, %{from: ^from, to: ^to, gap_us: gap_us, attempts: _}}
      assert gap_us > 0

      await_on(context, a, "s1", b)
      send_to(a, {:durable_handoff, 1, :move_request, 2, self(), %{what | to: to <> "x"}})
      assert refusal(2) =~ "did you mean #{to}?"
      send_to(a, {:durable_handoff, 1, :move_request, 3, self(), %{what | key: "s2", to: nil}})
      assert refusal(3) =~ "no server s2"
      send_to(a, {:durable_handoff, 1, :move_request, 4, self(), %{what | timeout_ms: 0}})
      assert refusal(4) =~ ":timeout_ms got 0"
    end

    test "gets the progress of a move", %{a: a} = context do
      start_cluster(context)
      start_servers(context, a, 1)
      hold_reads(context)
      what = %{supervisor: inspect(context.sup), key: "s1", to: nil, timeout_ms: 60_000}
      send_to(a, {:durable_handoff, 1, :move_request, 1, self(), what})
      assert_receive {:durable_handoff, 1, :drain_step, 1, %{total: 1, moved: 0, finished: false}}
      SimulatedStore.resume(context.store)
      assert_receive {:durable_handoff, 1, :move_done, 1, %{}}
    end

    test "gets a plan of a rebalance, then the rebalance with its balance", %{a: a, b: b} = context do
      start_cluster(context, handoff_on_shutdown: [rebalance: [after_ms: 600_000, min_servers: 0]])
      start_servers(context, a, 4)
      what = %{supervisor: inspect(context.sup), timeout_ms: nil, dry_run: true}
      send_to(a, {:durable_handoff, 1, :rebalance_request, 1, self(), what})
      assert_receive {:durable_handoff, 1, :plan, 1, %{total: 4, moves: 0, left: left, balance: balance}}
      # The servers have just been started.
      assert left == %{moved_lately: 4}
      assert %{excess: 2} = balance

      # The settings in the request are used, and an invalid one is refused.
      send_to(a, {:durable_handoff, 1, :rebalance_request, 4, self(), Map.put(what, :min_servers, 5)})
      assert_receive {:durable_handoff, 1, :plan, 4, %{moves: 0, balance: %{idle: :too_few_servers}}}
      send_to(a, {:durable_handoff, 1, :rebalance_request, 5, self(), Map.put(what, :tolerance, 11)})
      assert refusal(5) =~ ":tolerance got 11"

      :ok = call(b, DurableHandoff, :cordon, [context.sup])
      send_to(b, {:durable_handoff, 1, :rebalance_request, 2, self(), %{what | dry_run: false}})
      assert refusal(2) =~ "cordoned"
      :ok = call(b, DurableHandoff, :uncordon, [context.sup])
      wait_until(fn -> b in eligible(context, a) end)
      send_to(a, {:durable_handoff, 1, :rebalance_request, 3, self(), %{what | dry_run: false}})
      assert_receive {:durable_handoff, 1, :drain_done, 3, %{total: 4, moved: 0, balance: %{excess: 2}}}
    end

    test "gets the reason when a drain ends its rebalance", %{a: a, b: b} = context do
      options = [handoff_on_shutdown: [rebalance: [after_ms: 1, min_servers: 0]]]
      start_handoff(context, a, options)
      start_servers(context, a, 4)
      hold_reads(context)
      start_handoff(context, b, options)
      # The node has already started a rebalance, and the request joins it.
      wait_until(fn -> SimulatedStore.paused(context.store) != [] end)
      before = rebalance_waiters(context, a)
      what = %{supervisor: inspect(context.sup), timeout_ms: nil, dry_run: false}
      send_to(a, {:durable_handoff, 1, :rebalance_request, 1, self(), what})
      wait_until(fn -> rebalance_waiters(context, a) == before + 1 end)
      draining = Task.async(fn -> drain(context, a) end)
      assert refusal(1) =~ "came first"
      SimulatedStore.resume(context.store)
      assert {:ok, %{ended: :done}} = await_task(draining)
    end

    test "that is gone occupies no place, and its drain goes on", %{a: a, b: b} = context do
      start_cluster(context)
      keys = start_servers(context, a, 4)
      what = %{supervisor: inspect(context.sup), timeout_ms: nil, dry_run: false}

      occupy_and_go(context, 4, fn n, operator ->
        send_to(a, {:durable_handoff, 1, :drain_request, n, operator, what})
      end)

      ask(a, 42, context, [])
      SimulatedStore.resume(context.store)
      assert_receive {:durable_handoff, 1, :drain_done, 42, %{moved: 4}}
      assert_all_run_on(context, keys, [b])
    end

    test "that is gone occupies no place, and its moves go on", %{a: a, b: b} = context do
      start_cluster(context)
      keys = start_servers(context, a, 32)
      what = %{supervisor: inspect(context.sup), to: Atom.to_string(b), timeout_ms: nil}

      occupy_and_go(context, 32, fn n, operator ->
        send_to(a, {:durable_handoff, 1, :move_request, n, operator, Map.put(what, :key, "s#{n}")})
      end)

      SimulatedStore.resume(context.store)
      await_all_on(context, keys, [b])
    end

    test "that is gone before its drain has begun: the drain begins", %{a: a, b: b} = context do
      start_cluster(context)
      keys = start_servers(context, a, 4)
      operator = spawn(fn -> receive(do: (:end -> :ok)) end)
      Process.exit(operator, :kill)
      what = %{supervisor: inspect(context.sup), timeout_ms: nil, dry_run: false}
      send_to(a, {:durable_handoff, 1, :drain_request, 1, operator, what})
      await_all_on(context, keys, [b])
    end

    test "is told that its drain has failed, and the log has the reason", %{a: a} = context do
      start_cluster(context)
      start_servers(context, a, 2)
      listen_to_log(context, a)
      hold_reads(context)
      ask(a, 1, context, [])
      assert_receive {:durable_handoff, 1, :drain_step, 1, %{in_flight: 2}}
      [drain] = drain_processes(a, [DurableHandoff.Drain])
      true = call(a, Process, :exit, [drain, :kill])
      assert_receive {:durable_handoff, 1, :refuse, 1, :failed}
      assert {:error, %{reason: {:drain_failed, :killed}}} = await_log(a, :operator_drain_failed)
      SimulatedStore.resume(context.store)
    end

    test "gets a refusal with the reason for an impossible request", %{a: a} = context do
      start_cluster(context)
      ask(a, 3, %{sup: Nobody}, dry_run: true)
      assert refusal(3) =~ "no supervisor Nobody with a Drainer"
      ask(a, 4, context, timeout_ms: 0)
      assert refusal(4) =~ ":timeout_ms got 0"
    end
  end

  describe "a drain whose Rust node" do
    setup %{a: a, player: player} = context do
      start_cluster(context)
      keys = start_servers(context, a, 5)
      announce(a, player)
      wait_until(fn -> call(a, RustNodes, :all, []) != [] end)
      draining = Task.async(fn -> drain(context, a) end)
      assert_receive {:played, {:durable_handoff, 1, :drain_open, id, drain, %{count: 5}}}
      {:ok, keys: keys, draining: draining, id: id, drain: drain}
    end

    test "refuses: the embedded engine decides", %{id: id, drain: drain} = context do
      send(drain, {:durable_handoff, 1, :refuse, id, {:full, "drains", 1}})
      assert [{_, {:refused, {:full, "drains", 1}}}] = assert_all_moved(context)
    end

    @tag silent: true
    test "never answers: the embedded engine decides after two seconds", context do
      assert [{_, :silent}] = assert_all_moved(context)
    end

    test "dies in the middle: moves that it ordered count, and the rest moves, too",
         %{b: b, id: id, drain: drain} = context do
      open(context)
      send(drain, {:durable_handoff, 1, :orders, id, [{:start, 3, Atom.to_string(b), 1, 5_000}]})
      assert_receive {:played, {:durable_handoff, 1, :events, ^id, [{:finished, 3, 1, _outcome, _us} | _]}}
      Process.exit(context.player, :kill)
      assert [{_, {:down, :killed}}] = assert_all_moved(context)
    end

    test "orders the same server twice: not executed, and the embedded engine decides",
         %{b: b, id: id, drain: drain} = context do
      open(context)
      order = {:start, 3, Atom.to_string(b), 1, 5_000}
      send(drain, {:durable_handoff, 1, :orders, id, [order, order]})
      assert [{_, {:invalid_order, ^order}}] = assert_all_moved(context)
    end
  end

  defp open(%{id: id, drain: drain}) do
    send(drain, {:durable_handoff, 1, :opened, id})
    assert_receive {:played, {:durable_handoff, 1, :servers, ^id, 0, _records}}
    assert_receive {:played, {:durable_handoff, 1, :drain_start, ^id, _left_ms}}
    send(drain, {:durable_handoff, 1, :started, id})
  end

  defp assert_all_moved(%{keys: keys, draining: draining, b: b} = context) do
    assert {:ok, %{total: 5, moved: 5, executor: :embedded} = report} = await_task(draining)
    assert_all_run_on(context, keys, [b])
    report.executors_lost
  end

  # An operator that has as many requests as are answered at a time, of which `held` wait for the store, and dies.
  defp occupy_and_go(%{a: a} = context, held, request) do
    hold_reads(context)
    operator = spawn(fn -> receive(do: (:end -> :ok)) end)
    for n <- 1..32, do: request.(n, operator)
    await_held(context, held)
    send_to(a, {:durable_handoff, 1, :describe, 40, self()})
    assert_receive {:durable_handoff, 1, :refuse, 40, {:full, "requests", 32}}
    Process.exit(operator, :kill)

    wait_until(fn ->
      send_to(a, {:durable_handoff, 1, :describe, 41, self()})
      assert_receive {:durable_handoff, 1, answer, 41, _what}
      answer == :description
    end)
  end

  defp announce(node, pid, accepting \\ true),
    do: send_to(node, {:durable_handoff, 1, :announce, pid, %{release: "1.0", accepting: accepting}})

  defp rebalance_waiters(context, node) do
    {:ok, %{rebalance: %{waiting: waiting}}} = status(context, node)
    waiting
  end

  defp ask(node, request, context, what) do
    what = Map.merge(%{supervisor: inspect(context.sup), timeout_ms: nil, dry_run: false}, Map.new(what))
    send_to(node, {:durable_handoff, 1, :drain_request, request, self(), what})
  end

  defp refusal(request) do
    assert_receive {:durable_handoff, 1, :refuse, ^request, {:invalid, [why]}}, 30_000
    why
  end

  defp described(node, name) do
    send_to(node, {:durable_handoff, 1, :describe, 9, self()})
    assert_receive {:durable_handoff, 1, :description, 9, %{supervisors: supervisors}}
    Enum.find(supervisors, &(&1.name == name))
  end

  defp send_to(node, message), do: send({DurableHandoff.Agent, node}, message)
end
