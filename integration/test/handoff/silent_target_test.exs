defmodule Handoff.SilentTargetTest do
  @moduledoc "A target is suspended (SIGSTOP): it keeps its connections but does not answer."

  use HandoffCase, nodes: 2

  # DurableServer would wait longer for such a target than any drain here.
  @endless [placement_erpc_timeout_cross_region_ms: 600_000, placement_erpc_timeout_same_region_ms: 600_000]

  setup context do
    silent = start_node()
    os_pid = call(silent, System, :pid, [])
    on_exit(fn -> System.cmd("kill", ["-CONT", os_pid], stderr_to_stdout: true) end)
    {:ok, silent: silent, os_pid: os_pid, nodes: context.nodes ++ [silent]}
  end

  test "suspended before the drain: no server is stopped for it", %{a: a, b: b} = context do
    start_cluster(context, @endless)
    keys = start_servers(context, a, 8)
    suspend(context)

    assert {:ok, %{moved: 8, targets: targets}} = drain(context, a, timeout_ms: 100_000)
    assert targets == %{Atom.to_string(b) => 8}
    resume(context)
    assert_all_run_on(context, keys, [b])
  end

  @tag guarantee: "Nothing runs twice"
  test "suspended between stop and start: the servers start on another node", %{a: a, b: b, silent: silent} = context do
    for node <- [a, silent], do: start_handoff(context, node, @endless)
    await_heartbeats([a, silent], context.sup)
    keys = start_servers(context, a, 4)
    options = [timeout_ms: 100_000, concurrency: :fixed, max_concurrency: 4]
    draining = start_held(context, 4, fn -> drain(context, a, options) end)
    start_handoff(context, b, @endless)
    await_heartbeats([a, b], context.sup)
    suspend(context)
    SimulatedStore.resume(context.store)

    assert {:ok, %{moved: 4, left: left, targets: targets}} = await_task(draining)
    assert left == %{}
    assert targets == %{Atom.to_string(b) => 4}
    resume(context)
    assert_all_run_on(context, keys, [b])
    assert reservations(context) == []
  end

  defp suspend(%{os_pid: os_pid}) do
    {_output, 0} = System.cmd("kill", ["-STOP", os_pid])
    wait_until(fn -> File.read!("/proc/#{os_pid}/stat") =~ ") T " end)
  end

  defp resume(%{os_pid: os_pid}), do: {_output, 0} = System.cmd("kill", ["-CONT", os_pid])
end
