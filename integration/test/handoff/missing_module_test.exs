defmodule Handoff.MissingModuleTest do
  @moduledoc "Releases differ in a deploy: a server is stopped only for a node that has its module."

  use HandoffCase, nodes: 3, patient: true

  setup %{a: a} = context do
    # A slow target must not be given up.
    start_cluster(context, placement_erpc_timeout_cross_region_ms: 60_000)
    {:ok, everywhere: start_servers(context, a, 4)}
  end

  @tag guarantee: "A drain never makes things worse than no drain"
  test "a module that no other node has: its servers keep running, and the others move",
       %{a: a, b: b, c: c} = context do
    pids = start_of(context, new_module([a]), ["n1", "n2", "n3"])
    assert {:ok, report} = drain_heard(context, a, [b, c])
    assert %{moved: 4, left: left, failures: 0, ended: :done} = report
    assert left == %{module_missing: 3}
    for {key, pid} <- pids, do: assert(whereis(context, a, key) == pid)
    assert reservations(context) == []
  end

  test "a plan names the servers whose module no other node has", %{a: a} = context do
    start_of(context, new_module([a]), ["n1", "n2", "n3"])

    assert {:ok, plan} = call(a, DurableHandoff, :plan, [context.sup])
    assert %{left: %{module_missing: 3}, moves: [_, _, _, _], stays: [%{reason: :module_missing} | _]} = plan
  end

  test "a move to a node without the module: refused with that reason, and the server is not stopped",
       %{a: a, b: b} = context do
    [{key, pid}] = start_of(context, new_module([a]), ["n1"])
    assert {:error, {:not_moved, why}} = call(a, DurableHandoff, :move, [context.sup, key, [to: b]])
    assert %{reason: :module_missing, runs_on: ^a} = why
    assert whereis(context, a, key) == pid
  end

  test "modules that only some nodes have: each server moves to a node that has its module",
       %{a: a, b: b, c: c} = context do
    start_of(context, new_module([a, b]), ["b1", "b2", "b3"])
    start_of(context, new_module([a, c]), ["c1", "c2"])
    assert {:ok, %{moved: 9, failures: 0}} = drain_heard(context, a, [b, c])
    placement = placement(context)
    for key <- ["b1", "b2", "b3"], do: assert(placement[key] == b)
    for key <- ["c1", "c2"], do: assert(placement[key] == c)
    assert Enum.all?(context.everywhere, &(placement[&1] in [b, c]))
  end

  test "a module on the other node's disk that is not loaded counts as present", %{a: a} = context do
    for node <- context.nodes -- [a] do
      call(node, :code, :purge, [Troublesome])
      call(node, :code, :delete, [Troublesome])
    end

    start_server(context, a, Troublesome, "t", %{count: 0})
    assert {:ok, %{moved: 5}} = drain(context, a)
  end

  test "a node that joins during a drain gets no server before it was asked for its modules",
       %{a: a, b: b, c: c} = context do
    for node <- [b, c], do: assert({:ok, _report} = drain(context, node, force: true))
    for node <- [b, c], do: wait_until(fn -> node not in eligible(context, a) end)
    pids = start_of(context, new_module([a]), ["n1"])
    draining = Task.async(fn -> drain(context, a, wait_for_target_ms: 60_000, timeout_ms: 120_000) end)
    wait_until(fn -> match?({:ok, %{state: :draining, progress: %{total: 5}}}, status(context, a)) end)
    late = start_node()
    start_handoff(context, late)

    assert {:ok, %{moved: 4, left: %{module_missing: 1}, failures: 0}} = await_task(draining)
    for {key, pid} <- pids, do: assert(whereis(context, a, key) == pid)
  end

  defp start_of(context, module, keys),
    do: for(key <- keys, do: {key, start_server(context, context.a, module, key)})

  # A durable server whose module exists in the memory of `nodes` only and in no code path, as a module of
  # another release.
  defp new_module(nodes) do
    body =
      quote do
        use DurableServer, vsn: 1

        def init(state), do: {:ok, state, permanent: true}
        def dump_state(state), do: %{"key" => state.key}
        def load_state(_old_vsn, stored), do: %{key: stored["key"]}
      end

    name = Module.concat(__MODULE__, "New#{System.unique_integer([:positive])}")
    {:module, module, binary, _term} = Module.create(name, body, Macro.Env.location(__ENV__))
    for node <- nodes, do: {:module, _} = call(node, :code, :load_binary, [module, ~c"made by a test", binary])
    module
  end
end
