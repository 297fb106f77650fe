defmodule Handoff.MoveTest do
  @moduledoc """
  One server is moved on request: to a named or the best node, from any node. Every refusal has a reason.
  """

  use HandoffCase, nodes: 3, patient: true

  test "to a named node, as an atom or a string: the state moves with the server, and callers wait",
       %{a: a, b: b, c: c} = context do
    start_cluster(context)
    start_unsynced(context, a, 1)
    moving = start_held(context, 1, fn -> move(context, a, "s1", to: b) end)
    # The call is sent while the server has no owner.
    calling = Task.async(fn -> call(c, DurableHandoff, :call, [context.sup, "s1", :get, [timeout: 30_000]]) end)
    SimulatedStore.resume(context.store)
    assert {:ok, %{from: ^a, to: ^b, gap_ms: gap_ms, attempts: attempts}} = await_task(moving)
    assert gap_ms > 0 and attempts >= 1
    assert {:ok, 1} = await_task(calling)
    await_on(context, a, "s1", b)

    assert {:ok, %{to: ^c}} = move(context, b, "s1", to: Atom.to_string(c))
    assert_counts(context, ["s1"], 1)
    assert_all_run_on(context, ["s1"], [c])
  end

  test "to the best node, from a node that does not run the server", %{a: a, b: b, c: c} = context do
    start_cluster(context)
    start_servers(context, b, 4)
    start_server(context, a, Counter, "k")
    await_on(context, b, "k", a)
    assert {:ok, %{from: ^a, to: ^c}} = move(context, b, "k")
    await_on(context, b, "k", c)
  end

  test "the server already runs on the target: nothing is done", %{a: a} = context do
    start_cluster(context)
    pid = start_server(context, a, Counter, "k")
    assert {:ok, %{from: ^a, to: ^a, attempts: 0}} = move(context, a, "k", to: a)
    assert whereis(context, a, "k") == pid
  end

  test "a server that the policy excludes from drains moves when it is named", %{a: a, b: b} = context do
    start_cluster(context, handoff_on_shutdown: [modules: %{Counter => false}])
    start_server(context, a, Counter, "k")
    assert {:ok, %{moved: 0}} = drain(context, a)
    assert {:ok, %{to: ^b}} = move(context, a, "k", to: b)
  end

  test "names that do not exist: an error with the nearest", %{a: a, b: b} = context do
    start_cluster(context)
    pid = start_server(context, a, Counter, "room/12")
    near = Atom.to_string(b)
    misspelt = String.replace(near, "@", "x@")
    unknown = {:error, {:unknown_node, %{given: misspelt, did_you_mean: near}}}
    assert move(context, a, "room/12", to: misspelt) == unknown
    assert {:error, {:unknown_key, %{given: "rom/12", did_you_mean: "room/12"}}} = move(context, a, "rom/12")
    assert_raise ArgumentError, ~r/unknown option :too, did you mean :to/, fn -> move(context, a, "room/12", too: b) end
    assert whereis(context, a, "room/12") == pid
  end

  test "a target that cannot run the server: refused with the reason, and the server is not stopped",
       %{a: a, b: b, c: c} = context do
    start_handoff(context, a)
    start_handoff(context, b)
    start_handoff(context, c, max_children: 1)
    await_heartbeats(context.nodes, context.sup)
    pid = start_server(context, a, Counter, "k")
    start_server(context, c, Counter, "full")

    assert {:error, {:not_moved, %{reason: :capacity, runs_on: ^a}}} = move(context, a, "k", to: c)
    :ok = call(b, DurableHandoff, :cordon, [context.sup])
    wait_until(fn -> b not in eligible(context, a) end)
    assert {:error, {:not_moved, %{reason: :draining, to: to, runs_on: ^a}}} = move(context, a, "k", to: b)
    assert to == Atom.to_string(b)
    assert {:error, {:not_moved, %{reason: reason}}} = move(context, a, "k")
    assert reason in [:capacity, :no_target]
    :ok = call(b, DurableHandoff, :uncordon, [context.sup])
    # The node's data in the store stays when the connection is lost.
    wait_until(fn -> call(a, Host, :get_cluster_nodes, [context.sup])[to] end)
    disconnect(a, b)
    assert {:error, {:not_moved, %{reason: :not_connected}}} = move(context, a, "k", to: b)
    reconnect(a, b)
    assert whereis(context, a, "k") == pid
    assert reservations(context) == []
  end

  test "init fails on the target: the server is started again at once, and the error names its node",
       %{a: a, b: b} = context do
    start_cluster(context)
    start_server(context, a, Servers.Troublesome, "k", %{count: 0})
    :ok = Servers.Troublesome.arm(b, "k", :init, :raise)
    listen_to_log(context, a)
    assert {:error, {:not_moved, %{to: _, runs_on: node, error: error}}} = move(context, a, "k", to: b)
    assert is_binary(error)
    assert {:warning, %{key: "k", runs_on: ^node}} = await_log(a, :not_moved)
    assert placement(context) == %{"k" => node}
    assert reservations(context) == []
  end

  test "terminate/2 takes longer than the move may: the server is started again when it has stopped",
       %{b: b} = context do
    {a, context} = with_own_clock(context, [b])
    pid = move_to_deadline(context)
    Servers.Troublesome.disarm(a, "k", :terminate)
    await_down(pid)
    wait_until(fn -> is_map_key(placement(context), "k") end)
    wait_until(fn -> drain_processes(a) == [] end)
    assert reservations(context) == []
  end

  test "terminate/2 takes longer than the move may: the next move waits until the server has started again",
       %{b: b} = context do
    {a, context} = with_own_clock(context, [b])
    move_to_deadline(context)
    wait_until(fn -> drain_processes(a, [DurableHandoff.Drain]) == [] end)

    next = Task.async(fn -> move(context, a, "k", to: b, timeout_ms: 60_000) end)
    wait_until(fn -> waiting_in(a, DurableHandoff.Move) == 2 end)
    assert drain_processes(a, [DurableHandoff.Drain]) == []
    Servers.Troublesome.disarm(a, "k", :terminate)
    assert {:ok, %{to: ^b}} = await_task(next)
    assert placement(context) == %{"k" => b}
    assert reservations(context) == []
  end

  test "a rebalance waits for the server's terminate/2: the move waits until it has moved the server",
       %{a: a, b: b} = context do
    start_cluster(context, handoff_on_shutdown: [modules: %{Counter => false}, attempt_timeout_ms: 1_000])
    start_servers(context, a, 2)
    start_server(context, a, Servers.Troublesome, "k", %{count: 0})
    :ok = Servers.Troublesome.arm(a, "k", :terminate, :hang)
    rebalancing = Task.async(fn -> rebalance(context, a) end)
    wait_until(fn -> match?({:ok, %{rebalance: %{progress: %{stopping: 1}}}}, status(context, a)) end)

    moving = Task.async(fn -> move(context, a, "k", to: b, timeout_ms: 60_000) end)
    wait_until(fn -> waiting_in(a, DurableHandoff.Move) == 2 end)
    assert [_rebalance] = drain_processes(a, [DurableHandoff.Drain])
    Servers.Troublesome.disarm(a, "k", :terminate)
    assert {:ok, %{moved: 1}} = await_task(rebalancing)
    assert {:ok, %{to: ^b}} = await_task(moving)
    assert reservations(context) == []
  end

  test "a move waits for a server that is busy: a rebalance leaves the server alone", %{a: a, b: b} = context do
    options = [modules: %{Troublesome => false}, max_attempts: 1, timeout_ms: 60_000, attempt_timeout_ms: 60_000]
    start_cluster(context, handoff_on_shutdown: options)
    pid = start_server(context, a, Counter, "k")
    for n <- 1..2, do: start_server(context, a, Troublesome, "kept#{n}", %{count: 0})
    :ok = :sys.suspend(pid)
    moving = Task.async(fn -> move(context, a, "k", to: b) end)
    wait_until(fn -> drain_processes(a, [DurableHandoff.Drain.Attempt]) != [] end)
    assert {:ok, %{moved: 0, left: %{attempts_exhausted: 1}}} = rebalance(context, a)
    :ok = :sys.resume(pid)
    assert {:ok, %{to: ^b}} = await_task(moving)
  end

  test "the store stops answering during the move, requested elsewhere: the error says why it did not move",
       %{b: b, c: c} = context do
    {a, context} = with_own_clock(context, [b, c])
    FrozenClock.freeze(a)
    start_cluster(context)
    [key] = start_known(context, a, 1, c)
    moving = start_held(context, 1, fn -> move(context, c, key, to: b, timeout_ms: 60_000) end)
    FrozenClock.advance(a, 60_000)
    # After the move, the owner tries for ten seconds to start the server again.
    assert {:error, {:not_moved, %{runs_on: nil}}} = await_task(moving)
    SimulatedStore.resume(context.store)
  end

  test "the caller dies, and init fails on the target: the server is started again at once", %{a: a, b: b} = context do
    # Nothing else starts it.
    start_cluster(context, no_sweeps(context))
    start_server(context, a, Servers.Troublesome, "k", %{count: 0})
    :ok = Servers.Troublesome.arm(b, "k", :init, :raise)
    hold_reads(context, "k")
    caller = Node.spawn(a, DurableHandoff, :move, [context.sup, "k", [to: b]])
    await_held(context, 1)
    Process.exit(caller, :kill)
    wait_until(fn -> not call(a, Process, :alive?, [caller]) end)
    SimulatedStore.resume(context.store)
    wait_until(fn -> is_map_key(placement(context), "k") end)
    wait_until(fn -> drain_processes(a) == [] end)
    assert reservations(context) == []
  end

  test "init fails on the target, and the server is deleted while it is started again: it is not created anew",
       %{a: a, b: b} = context do
    start_cluster(context, no_sweeps(context))
    start_server(context, a, Servers.Troublesome, "k", %{count: 0})
    :ok = Servers.Troublesome.arm(b, "k", :init, :raise)
    listen_to_telemetry(a)
    hold(context, [:get, :put], "k")
    moving = Task.async(fn -> move(context, a, "k", to: b) end)

    # What is held before this event is a request of the move, and after it one of the new start.
    wait_until(fn ->
      held = SimulatedStore.paused(context.store)

      receive do
        {:event, [:durable_handoff, :move, :stop], _measured, _metadata} -> true
      after
        0 -> held != [] and SimulatedStore.step(context.store) != :ok
      end
    end)

    wait_until(fn -> match?([{:get, _key}], SimulatedStore.paused(context.store)) end)
    # The server is found, and deleted before the next request.
    :ok = SimulatedStore.step(context.store)
    await_held(context, 1)
    :ok = SimulatedStore.delete_object(context.store, storage_key(context, "k"))
    SimulatedStore.resume(context.store)
    assert {:error, {:not_moved, %{runs_on: nil}}} = await_task(moving)
    assert placement(context) == %{}
    assert SimulatedStore.peek(context.store, storage_key(context, "k")) == nil
  end

  test "the server deletes itself, or ends by itself, before it is asked to stop: it is not started again", context do
    start_cluster(context)

    for {how, permanent} <- [delete: true, normal: false] do
      pid = start_server(context, context.a, Counter, "k", %{permanent: permanent})
      assert {:ok, {:error, {:not_moved, %{reason: :gone, runs_on: nil}}}} = stop_then_move(context, pid, how)
      assert placement(context) == %{}
      left = SimulatedStore.peek(context.store, storage_key(context, "k"))
      assert {how, left == nil} == {how, how == :delete}
    end
  end

  test "refused during a drain of the server's node", %{a: a, b: b} = context do
    start_cluster(context)
    start_servers(context, a, 2)
    draining = start_held(context, 1, fn -> drain(context, a, max_concurrency: 1) end)
    [{:get, held}] = SimulatedStore.paused(context.store)
    other = hd(["s1", "s2"] -- [String.replace_prefix(held, context.opts[:prefix], "")])
    assert {:error, :draining} = move(context, a, other, to: b)
    SimulatedStore.resume(context.store)
    assert {:ok, %{moved: 2}} = await_task(draining)
  end

  test "requested while the server moves: it waits for the new owner", context do
    # For a second. If the move takes longer on a busy machine, the test repeats.
    wait_until(fn -> move_while_moving(another_supervisor(context)) end)
  end

  test "requested where the registry still has the earlier owner: it waits for the new one", %{a: a, b: b} = context do
    {c, context} = with_own_clock(context, [a, b])
    start_cluster(context)
    start_known(context, a, 1, c)
    replicas = replicas(context, c)
    # The second for which it waits does not pass.
    FrozenClock.freeze(c)
    for replica <- replicas, do: :ok = call(c, :sys, :suspend, [replica])
    assert {:ok, %{to: ^b}} = move(context, a, "s1", to: b)
    again = Task.async(fn -> move(context, c, "s1", to: c) end)
    wait_until(fn -> waiting_in(c, Process) > 0 or not Process.alive?(again.pid) end)
    for replica <- replicas, do: :ok = call(c, :sys, :resume, [replica])
    assert {:ok, %{from: ^b, to: ^c}} = await_task(again)
  end

  describe "requested on a node that is not connected to the server's" do
    setup %{b: b} = context do
      start_cluster(context)
      {:ok, pid: start_server(context, b, Counter, "k")}
    end

    test "it connects, and the server moves", %{a: a, b: b, c: c} = context do
      cut_off(context)
      true = call(a, Node, :set_cookie, [b, Node.get_cookie()])
      assert {:ok, %{from: ^b, to: ^c}} = move(context, a, "k", to: c)
    end

    test "it cannot connect: the error names the server's node", %{a: a, b: b, c: c, pid: pid} = context do
      cut_off(context)
      assert {:error, {:owner_failed, %{node: ^b, reason: {:erpc, :noconnection}}}} = move(context, a, "k", to: c)
      assert whereis(context, b, "k") == pid
    end

    @tag stand_in_only: "DurableServer itself connects to a node whose cookie fits, before the move or during it"
    test "with reconnect: false it does not connect", %{a: a, b: b, c: c} = context do
      context = another_supervisor(context)
      start_cluster(context, handoff_on_shutdown: [reconnect: false])
      start_server(context, b, Counter, "k")
      cut_off(context)
      true = call(a, Node, :set_cookie, [b, Node.get_cookie()])
      assert {:error, {:owner_failed, %{node: ^b, reason: {:erpc, :noconnection}}}} = move(context, a, "k", to: c)
      assert b not in call(a, Node, :list, [])
    end
  end

  test "requested by the server itself, which could not be asked to stop: refused", %{a: a} = context do
    start_cluster(context)
    pid = start_server(context, a, Counter, "k")
    move = {:apply, DurableHandoff, :move, [context.sup, "k"]}
    assert {:error, :calling_self} = GenServer.call(pid, move, 60_000)
    assert whereis(context, a, "k") == pid
  end

  test "the server runs on a node without a Drainer: the error names that node", %{a: a, b: b} = context do
    start_handoff(context, a)
    start_host(b, context.opts)
    await_heartbeats([a, b], context.sup)
    pid = start_server(context, b, Counter, "k")
    await_on(context, a, "k", b)
    assert {:error, {:owner_failed, %{node: ^b, reason: :no_drainer}}} = move(context, a, "k", to: a)
    assert whereis(context, b, "k") == pid
  end

  test "requested twice at the same time: the second request waits for the first, and then moves it from there",
       %{a: a, b: b, c: c} = context do
    start_cluster(context)

    for {key, second} <- [{"k", c}, {"l", b}] do
      pid = start_server(context, a, Counter, key)
      :ok = :sys.suspend(pid)

      [first, last] =
        for {target, asked} <- [{b, 1}, {second, 2}] do
          move = Task.async(fn -> move(context, a, key, to: target) end)

          # The caller and the process of each move wait, and one drain runs.
          wait_until(fn ->
            waiting_in(a, DurableHandoff.Move) == 2 * asked and
              match?([_one], drain_processes(a, [DurableHandoff.Drain]))
          end)

          move
        end

      :ok = :sys.resume(pid)
      assert {:ok, %{from: ^a, to: ^b}} = await_task(first)
      assert {:ok, %{from: ^b, to: ^second}} = await_task(last)
      assert node(whereis(context, second, key)) == second
    end
  end

  test "another move of it has not ended in time: the error says so, and nothing is done",
       %{a: a, b: b, c: c} = context do
    start_cluster(context)
    pid = start_server(context, a, Counter, "k")
    :ok = :sys.suspend(pid)
    first = Task.async(fn -> move(context, a, "k", to: b) end)
    wait_until(fn -> match?([_one], drain_processes(a, [DurableHandoff.Drain])) end)
    late = move(context, a, "k", to: c, timeout_ms: 1)
    assert {:error, {:not_moved, %{reason: :deadline, error: "another move" <> _, runs_on: ^a}}} = late
    :ok = :sys.resume(pid)
    assert {:ok, %{to: ^b}} = await_task(first)
  end

  test "from a cordoned node, and several servers at a time", %{a: a, b: b, c: c} = context do
    start_cluster(context)
    keys = start_servers(context, a, 10)
    :ok = call(a, DurableHandoff, :cordon, [context.sup])
    moves = for key <- keys, do: Task.async(fn -> move(context, a, key) end)
    for result <- await_tasks(moves), do: assert({:ok, %{from: ^a}} = result)
    await_all_on(context, keys, [b, c])
  end

  # A move from the first node, whose clock is stopped, to the second has ended at its deadline, and the server hangs in
  # terminate/2. Returns its process.
  defp move_to_deadline(%{nodes: [a, b]} = context) do
    # Nothing else starts the server.
    start_cluster(context, no_sweeps(context))
    pid = start_server(context, a, Servers.Troublesome, "k", %{count: 0})
    :ok = Servers.Troublesome.arm(a, "k", :terminate, :hang)
    FrozenClock.freeze(a)
    moving = Task.async(fn -> move(context, a, "k", to: b, timeout_ms: 60_000) end)
    wait_until(fn -> Servers.Troublesome.hangs?(a, "k", :terminate) end)
    FrozenClock.advance(a, 60_000)
    assert {:error, {:not_moved, %{reason: :deadline}}} = await_task(moving)
    pid
  end

  defp cut_off(%{a: a, b: b} = context) do
    disconnect(a, b)
    await_none(context, a, "k")
  end

  # nil if the second request had no owner in time.
  defp move_while_moving(%{a: a, b: b, c: c} = context) do
    start_cluster(context)
    start_known(context, a, 1, c)
    moving = start_held(context, 1, fn -> move(context, a, "s1", to: b) end)
    await_none(context, c, "s1")
    again = Task.async(fn -> move(context, c, "s1", to: c) end)
    wait_until(fn -> waiting_in(c, DurableHandoff.Client.Call) == 1 or not Process.alive?(again.pid) end)
    SimulatedStore.resume(context.store)
    assert {:ok, %{to: ^b}} = await_task(moving)

    case await_task(again) do
      {:ok, moved} -> assert %{from: ^b, to: ^c} = moved
      {:error, {:unknown_key, _key}} -> nil
    end
  end

  # The processes that receive the registry's updates on `node`: of the stand-in, and of DurableServer.
  defp replicas(context, node) do
    names = for name <- call(node, Process, :registered, []), do: Atom.to_string(name)
    for name <- names, name =~ ~r/^#{context.sup}_(group|replica_\d+)$/, do: String.to_existing_atom(name)
  end

  # The server's answer to a stop, and then the result of a move that was requested before the server has
  # ended.
  defp stop_then_move(%{a: a, b: b} = context, pid, how) do
    :ok = :sys.suspend(pid)
    stopping = Task.async(fn -> GenServer.call(pid, {:stop, how}, :infinity) end)
    wait_until(fn -> queued(pid) == 1 end)
    moving = Task.async(fn -> move(context, a, "k", to: b) end)
    wait_until(fn -> queued(pid) > 1 end)
    :ok = :sys.resume(pid)
    {await_task(stopping), await_task(moving)}
  end

  defp queued(pid) do
    {:message_queue_len, queued} = call(node(pid), Process, :info, [pid, :message_queue_len])
    queued
  end

  defp rebalance(context, node),
    do: call(node, DurableHandoff, :rebalance, [context.sup, [after_ms: 0, min_servers: 0]], :infinity)

  defp move(context, node, key, options \\ []), do: call(node, DurableHandoff, :move, [context.sup, key, options])
end
