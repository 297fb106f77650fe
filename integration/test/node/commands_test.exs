defmodule Node.CommandsTest do
  @moduledoc "Commands of an operator, with the real program and real BEAM nodes."

  use HandoffCase, nodes: 3

  setup context do
    for node <- context.nodes,
        do: {:ok, _apps} = Cluster.call(node, Application, :ensure_all_started, [:durable_handoff])

    start_cluster(context)
    :ok
  end

  test "a cordoned node gets no server of a drain; after uncordon it does",
       %{a: a, b: b, c: c} = context do
    keys = start_servers(context, a, 6)
    assert {_said, 0} = RustNode.command(["cordon", Atom.to_string(b)])
    assert %{"cordoned" => true, "draining" => true} = described(a, b)
    wait_until(fn -> b not in eligible(context, a) end)
    assert {_report, 0} = RustNode.command(["drain", Atom.to_string(a)])
    assert_all_run_on(context, keys, [c])

    assert {_said, 0} = RustNode.command(["uncordon", Atom.to_string(b)])
    assert {_said, 0} = RustNode.command(["uncordon", Atom.to_string(a)])
    assert %{"cordoned" => false, "draining" => false} = described(a, b)
    wait_until(fn -> Enum.sort([a, b]) -- eligible(context, c) == [] end)
    assert {_report, 0} = RustNode.command(["drain", Atom.to_string(c)])
    assert_all_run_on(context, keys, [a, b])
  end

  test "a node is draining while a requested drain runs, and cordoned after it", %{a: a, b: b} = context do
    start_servers(context, a, 1)
    draining = start_held(context, 1, fn -> drain(context, a) end)
    assert %{"cordoned" => false, "draining" => true} = described(b, a)
    SimulatedStore.resume(context.store)
    assert {:ok, %{moved: 1}} = await_task(draining)
    assert %{"cordoned" => true, "draining" => true} = described(b, a)
  end

  test "move: one server moves to the named node", %{a: a, b: b, c: c} = context do
    # The node that is asked does not run the server, and knows which one does.
    [key] = start_known(context, a, 1, b)
    assert {said, 0} = RustNode.command(["move", Atom.to_string(b), key, "--to", Atom.to_string(c), "--json"])
    from = Atom.to_string(a)
    to = Atom.to_string(c)
    assert %{"from" => ^from, "to" => ^to, "attempts" => _} = DurableHandoff.Codec.decode!(said)
    assert %{^key => ^c} = placement(context)

    assert {said, 6} = RustNode.command(["move", Atom.to_string(a), "no such key"])
    assert said =~ "refuses"
  end

  test "rebalance: servers above the share that arrived recently stay, and the command says so", %{a: a} = context do
    keys = start_servers(context, a, 60)
    connect = ["--connect", Atom.to_string(a)]
    assert {said, 5} = RustNode.command(["rebalance", "--dry-run", "--json" | connect])
    assert %{"dry_run" => true, "moved" => 0, "nodes" => rows} = DurableHandoff.Codec.decode!(said)
    name = Atom.to_string(a)
    assert %{"before" => 60, "after" => 60, "left" => %{"moved_lately" => 40}} = Enum.find(rows, &(&1["node"] == name))
    assert ["within_tolerance", "within_tolerance"] = for(row <- rows, row["node"] != name, do: row["idle"])

    assert {said, 5} = RustNode.command(["rebalance" | connect])
    assert said =~ "0 servers moved" and said =~ "moved_lately 40"
    assert_all_run_on(context, keys, [a])

    assert {said, 0} = RustNode.command(["rebalance", "--dry-run", "--json", "--after-ms", "0" | connect])
    assert %{"moved" => 40} = DurableHandoff.Codec.decode!(said)
  end

  defp described(connect, node) do
    {said, 0} = RustNode.command(["nodes", "--json", "--connect", Atom.to_string(connect)])
    name = Atom.to_string(node)
    %{"supervisors" => [supervisor]} = said |> DurableHandoff.Codec.decode!() |> Enum.find(&(&1["name"] == name))
    supervisor
  end
end
