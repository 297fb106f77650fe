defmodule Handoff.OutOfReachTest do
  @moduledoc "Nodes with a heartbeat in the store but without a connection: a drain names them, connects to them and waits for them."

  use HandoffCase, nodes: 3

  setup %{b: b, c: c} = context do
    start_cluster(context, heartbeat_interval_ms: 50)
    {:ok, names: Enum.sort(for node <- [b, c], do: Atom.to_string(node))}
  end

  test "plan, status and report name the unreachable nodes, and no server is stopped",
       %{a: a, names: names} = context do
    pid = start_server(context, a, Counter, "k")
    cut_off(context)
    assert {:ok, %{out_of_reach: ^names, left: %{no_target: 1}}} = call(a, DurableHandoff, :plan, [context.sup])
    assert {:ok, %{out_of_reach: ^names}} = status(context, a)
    assert drain(context, a) == {:error, :no_peers}
    listen_to_log(context, a)

    assert {:ok, %{out_of_reach: ^names, left: %{no_target: 1}, attempts: 0}} =
             drain(context, a, force: true, wait_for_target_ms: 0)

    assert {:warning, %{nodes: ^names}} = await_log(a, :nodes_out_of_reach)
    assert whereis(context, a, "k") == pid
  end

  test "a drain connects to them and moves the servers", %{a: a, b: b, c: c} = context do
    keys = start_servers(context, a, 6)
    cut_off(context)
    for other <- [b, c], do: true = call(a, Node, :set_cookie, [other, Node.get_cookie()])
    # A connection may take long.
    options = [force: true, wait_for_target_ms: 60_000, timeout_ms: 120_000]
    assert {:ok, %{moved: 6}} = drain(context, a, options)
    assert_all_run_on(context, keys, [b, c])
  end

  test "with reconnect: false it does not connect", %{a: a} = context do
    start_servers(context, a, 2)
    cut_off(context)
    for other <- context.nodes -- [a], do: true = call(a, Node, :set_cookie, [other, Node.get_cookie()])

    assert {:ok, %{moved: 0, left: %{no_target: 2}}} =
             drain(context, a, force: true, reconnect: false, wait_for_target_ms: 0)
  end

  @tag guarantee: "A drain never makes things worse than no drain"
  test "all nodes disconnect during a drain and come back: it stops no server meanwhile, then goes on",
       %{a: a, b: b, c: c} = context do
    keys = start_servers(context, a, 12)
    # Each server has only one attempt, so a lost connection must not be charged to it.
    waits = [wait_for_target_ms: 60_000, timeout_ms: 120_000]
    options = [max_concurrency: 2, concurrency: :fixed, max_attempts: 1] ++ waits
    draining = start_held(context, 2, fn -> drain(context, a, options) end)
    for other <- [b, c], do: disconnect(a, other)
    SimulatedStore.resume(context.store)

    # Servers in flight are held; the others wait and keep running.
    wait_until(fn -> match?({:ok, %{progress: %{displaced: 2, pending: 10, in_flight: 0}}}, status(context, a)) end)
    assert running_on(context, a) == 10
    for other <- [b, c], do: true = call(a, Node, :set_cookie, [other, Node.get_cookie()])

    assert {:ok, %{moved: 12, total: 12, ended: :done}} = await_task(draining)
    assert_all_run_on(context, keys, [b, c])
  end

  # Also waits until the node knows the others from the store only.
  defp cut_off(%{a: a, names: names} = context) do
    for other <- context.nodes -- [a], do: disconnect(a, other)
    wait_until(fn -> match?({:ok, %{out_of_reach: ^names}}, status(context, a)) end)
  end
end
