defmodule Node.RebalanceTest do
  @moduledoc "Rebalances that a Rust node coordinates, with the real program and real BEAM nodes."

  use HandoffCase, nodes: 4, patient: true

  test "only servers above the share move, evenly spread", %{a: a, b: b, c: c, d: d} = context do
    rust = RustNode.start(context.nodes)
    start_cluster(context)
    keys = start_servers(context, a, 40)
    assert {:ok, report} = rebalance(context, a)
    assert %{goal: :rebalance, moved: 30, ended: :done, executors_lost: [], balance: %{excess: 30, idle: nil}} = report
    assert report.executor == {:node, rust.name}
    assert context |> placement() |> Map.values() |> Enum.frequencies() == %{a => 10, b => 10, c => 10, d => 10}
    assert Enum.sort(Map.keys(placement(context))) == Enum.sort(keys)
    assert reservations(context) == []
  end

  test "a Rust node without rebalance support is not asked", %{a: a, b: b, d: fake} = context do
    {:ok, _apps} = call(a, Application, :ensure_all_started, [:durable_handoff])
    context = %{context | nodes: [a, b]}
    player = call(fake, FakeRustNode, :start, [self()])
    wait_until(fn -> call(a, DurableHandoff.RustNodes, :all, []) == [] end)
    info = %{release: "1.0", accepting: true}
    call(a, :erlang, :send, [DurableHandoff.Agent, {:durable_handoff, 1, :announce, player, info}])
    wait_until(fn -> call(a, DurableHandoff.RustNodes, :all, []) != [] end)
    start_cluster(context)
    start_servers(context, a, 4)
    assert {:ok, %{moved: 2, executor: :embedded, executors_lost: []}} = rebalance(context, a)
    # A Rust node of that release would ignore the limit.
    assert {:ok, %{executor: :embedded, executors_lost: []}} = drain(context, a, max_per_second: 1_000)
    refute_received {:played, {:durable_handoff, 1, :drain_open, _id, _drain, _spec}}
    refute_received {:played, {:durable_handoff, 1, :rebalance_open, _id, _drain, _spec}}
  end

  test "the Rust node is killed in the middle: moves in flight end, and nothing else starts",
       %{a: a, nodes: [_source | targets]} = context do
    %{name: name} = rust = RustNode.start(context.nodes)
    start_cluster(context)
    keys = start_known(context, a, 12, targets)
    listen_to_log(context, a)
    moving = start_held(context, 2, fn -> rebalance(context, a, max_concurrency: 2) end)
    RustNode.signal(rust, "KILL")
    {:warning, _line} = await_log(a, :executor_lost, %{node: name})
    await_heard(context, targets)
    SimulatedStore.resume(context.store)
    assert {:ok, %{moved: 2, ended: :done, executors_lost: [{^name, _why}], balance: balance}} = await_task(moving)
    assert %{excess: 9, idle: :coordinator_lost} = balance
    assert Enum.sort(Map.keys(placement(context))) == Enum.sort(keys)
    assert {:ok, %{moved: 7, executor: :embedded, balance: %{idle: nil}}} = rebalance(context, a)
  end

  defp rebalance(context, node, options \\ []),
    do: call(node, DurableHandoff, :rebalance, [context.sup, [after_ms: 1, min_servers: 0] ++ options])
end
