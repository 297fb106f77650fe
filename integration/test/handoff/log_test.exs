defmodule Handoff.LogTest do
  @moduledoc "The log has the lines that an operator needs, however much DurableServer logs about each move."

  use HandoffCase, nodes: 2

  setup %{a: a} = context do
    for node <- context.nodes, do: {:ok, _apps} = call(node, Application, :ensure_all_started, [:durable_handoff])
    start_cluster(context)
    for id <- call(a, :logger, :get_handler_ids, []), do: call(a, :logger, :set_handler_config, [id, :level, :none])
    :ok = call(a, :logger, :set_primary_config, [:level, :info])
    on_exit(fn -> call(a, :logger, :set_primary_config, [:level, :none]) end)
    :ok
  end

  test "a drain raises the log level of DurableServer's modules, and restores it", %{a: a} = context do
    start_servers(context, a, 2)
    own = DurableServer.Supervisor
    :ok = call(a, :logger, :set_module_level, [own, :debug])
    draining = start_held(context, 2, fn -> drain(context, a) end)
    levels = Map.new(module_levels(a))
    assert levels[DurableServer.LifecycleManager] == :warning
    assert levels[own] == :debug
    SimulatedStore.resume(context.store)
    assert {:ok, %{moved: 2}} = await_task(draining)
    wait_until(fn -> module_levels(a) == [{own, :debug}] end)
    :ok = call(a, :logger, :unset_module_level, [own])
  end

  for {what, quiet, level} <- [{"quiet: false", false, :info}, {"a higher level", true, :error}] do
    test "#{what} leaves the log as it is", %{a: a} = context do
      start_servers(context, a, 2)
      :ok = call(a, :logger, :set_primary_config, [:level, unquote(level)])
      draining = start_held(context, 2, fn -> drain(context, a, quiet: unquote(quiet)) end)
      assert module_levels(a) == []
      SimulatedStore.resume(context.store)
      assert {:ok, %{moved: 2}} = await_task(draining)
    end
  end

  test "the log levels are restored when a drain is killed", %{a: a} = context do
    start_servers(context, a, 2)
    draining = start_held(context, 2, fn -> drain(context, a) end)
    [drain] = drain_processes(a, [DurableHandoff.Drain])
    true = call(a, Process, :exit, [drain, :kill])
    assert {:error, {:drain_failed, :killed}} = await_task(draining)
    wait_until(fn -> module_levels(a) == [] end)
    SimulatedStore.resume(context.store)
  end

  # OTP sets the level of ssl_logger when ssl starts.
  defp module_levels(node), do: Keyword.delete(call(node, :logger, :get_module_level, []), :ssl_logger)
end
