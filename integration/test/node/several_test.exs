defmodule Node.SeveralTest do
  @moduledoc "Several Rust nodes: all nodes ask the same one, and the next one when it is gone."

  use HandoffCase, nodes: 3

  test "all nodes ask the same Rust node for a storage, and the other one when it leaves",
       %{a: a, b: b, c: c} = context do
    rusts = for _ <- 1..2, do: RustNode.start(context.nodes)
    start_cluster(context)
    of_a = start_servers(context, a, 4)
    assert {:ok, %{moved: 4, executor: {:node, first}, executors_lost: []}} = drain(context, a)

    # Some of the servers have moved to b, which then drains, too.
    on_b = for {key, ^b} <- placement(context), do: key
    assert on_b != []
    assert {:ok, %{executor: {:node, ^first}}} = drain(context, b)
    assert_all_run_on(context, of_a, [c])

    {[chosen], [other]} = Enum.split_with(rusts, &(&1.name == first))
    RustNode.signal(chosen, "TERM")
    for node <- context.nodes, do: wait_until(fn -> not RustNode.announced?(node, first) end)
    name = other.name
    assert {:ok, %{executor: {:node, ^name}, executors_lost: []}} = drain(context, c, force: true)
  end

  test "a Rust node that is killed between drains is no longer asked", %{a: a} = context do
    rust = RustNode.start(context.nodes)
    start_cluster(context)
    RustNode.signal(rust, "KILL")
    wait_until(fn -> RustNode.announced(a) == [] end)
    start_servers(context, a, 2)
    assert {:ok, %{moved: 2, executor: :embedded, executors_lost: []}} = drain(context, a)
  end
end
