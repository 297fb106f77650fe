defmodule Node.DrainTest do
  @moduledoc "Drains that a Rust node coordinates, with the real program and real BEAM nodes."

  use HandoffCase, nodes: 4, patient: true

  test "all servers move with their states, evenly spread, and no reservation remains",
       %{a: a, b: b, c: c, d: d} = context do
    rust = RustNode.start(context.nodes)
    # A slow target must not be given up.
    start_cluster(context, placement_erpc_timeout_cross_region_ms: 60_000)
    keys = start_servers(context, a, 90)
    for key <- keys, do: assert(ask(whereis(context, a, key), :add) == 1)
    assert {:ok, report} = drain_heard(context, a, [b, c, d])
    assert %{total: 90, moved: 90, left: left, ended: :done, executors_lost: [], first_errors: []} = report
    assert report.executor == {:node, rust.name}
    assert left == %{}
    assert report.gap_ms.count == 90
    assert Enum.sort(Map.keys(report.targets)) == Enum.sort(for node <- [b, c, d], do: Atom.to_string(node))
    assert Enum.min(Map.values(report.targets)) >= 0.9 * Enum.max(Map.values(report.targets))
    assert_all_run_on(context, keys, [b, c, d])
    for key <- keys, do: assert(ask(await_moved(context, b, key, a), :get) == 1)
    wait_until(fn -> drain_processes(a) == [] end)
  end

  test "two concurrent drains spread their servers evenly over the targets", %{a: a, b: b, c: c, d: d} = context do
    rust = RustNode.start(context.nodes)
    start_cluster(context)
    of_a = start_servers(context, a, 40)
    of_b = for n <- 1..40, do: "t#{n}"
    for key <- of_b, do: start_server(context, b, Counter, key)
    SimulatedStore.configure(context.store, latency_ms: 5, slots: 8)

    reports = [a, b] |> Enum.map(&Task.async(fn -> drain(context, &1) end)) |> await_tasks()

    for {:ok, report} <- reports, do: assert(%{moved: 40, executors_lost: []} = report)
    assert Enum.map(reports, fn {:ok, report} -> report.executor end) == [{:node, rust.name}, {:node, rust.name}]
    assert_all_run_on(context, of_a ++ of_b, [c, d])
    counts = context |> placement() |> Map.values() |> Enum.frequencies()
    assert Enum.min(Map.values(counts)) >= 0.9 * Enum.max(Map.values(counts))
  end

  test "a shutdown's drain is coordinated by the Rust node", %{a: a, b: b, c: c, d: d} = context do
    RustNode.start(context.nodes)
    [app | _others] = start_cluster(context)
    keys = start_servers(context, a, 20)
    :ok = stop_children(a, app)
    await_all_on(context, keys, [b, c, d])
  end

  test "a drain with a server that does not stop is ended at its deadline by the Rust node",
       %{b: b, c: c, d: d} = context do
    {a, context} = with_own_clock(context, [b, c, d])
    rust = RustNode.start(context.nodes, ["--http", "127.0.0.1:0"])
    address = RustNode.http(rust)
    FrozenClock.freeze(a)
    start_cluster(context)
    start_server(context, a, Troublesome, "s1")
    Troublesome.arm(a, "s1", :terminate, :hang)
    hold_policy(a)
    options = [timeout_ms: 600_000, eligible: &HandoffCase.held_policy/1]
    draining = Task.async(fn -> drain(context, a, options) end)
    assert_receive {:held, policy}, 60_000
    # Five seconds are left for an engine. The Rust node gets half a second less, by its own clock, which runs.
    FrozenClock.advance(a, 594_500)
    send(policy, :go_on)
    wait_until(fn -> Troublesome.hangs?(a, "s1", :terminate) end)
    # In the last half second an engine may end a drain with a move in flight. This side's clock stays there.
    FrozenClock.advance(a, 4_900)
    assert {:ok, %{moved: 0, ended: :deadline, executors_lost: []} = report} = await_task(draining)
    assert {report.executor, report.left} == {{:node, rust.name}, %{deadline: 1}}
    assert {said, 0} = System.cmd(RustNode.program(), ["status", "--json", "--http", address])
    assert [%{"ended" => "deadline", "moved" => 0, "total" => 1}] = DurableHandoff.Codec.decode!(said)["ended"]
    Troublesome.disarm(a, "s1", :terminate)
    wait_until(fn -> drain_processes(a) == [] end)
  end

  test "executor: :embedded does not ask the Rust node", %{a: a} = context do
    RustNode.start(context.nodes)
    start_cluster(context)
    start_servers(context, a, 3)
    assert {:ok, %{moved: 3, executor: :embedded, executors_lost: []}} = drain(context, a, executor: :embedded)
  end

  test "executor: {:node, name} asks the named Rust node", %{a: a} = context do
    names = for _ <- 1..3, do: RustNode.start(context.nodes).name
    start_cluster(context)
    start_servers(context, a, 3)
    for name <- names, do: assert({:ok, %{executor: {:node, ^name}}} = drain(context, a, executor: {:node, name}))
  end
end
