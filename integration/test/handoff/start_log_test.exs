defmodule Handoff.StartLogTest do
  @moduledoc "The log of a start: DurableServer evaluates `heartbeat_meta` before its tables exist."

  use HandoffCase, nodes: 1

  @moduletag :capture_log

  setup %{nodes: [node]} = context do
    listen_to_log(context, node)
    {:ok, node: node}
  end

  test "the start of a supervisor with handoff makes DurableServer log no warning", %{node: node} = context do
    {:ok, _apps} = call(node, Application, :ensure_all_started, [:durable_handoff])
    start_handoff(context, node, handoff_on_shutdown: [generation: "7.1"])
    assert {:info, _metadata} = await_log(node, :handoff_on)
    for level <- [:warning, :error], do: refute_received({:log, ^node, ^level, :host, _metadata})
    refute_received {:log, ^node, _level, :application_not_started, _metadata}
  end

  test "a Drainer on a node without the application :durable_handoff warns", %{node: node} = context do
    call(node, Application, :stop, [:durable_handoff])
    start_handoff(context, node)
    assert {:warning, _metadata} = await_log(node, :application_not_started)
  end

  test "prepare_stop/0 without the application returns an error", %{node: node} = context do
    call(node, Application, :stop, [:durable_handoff])
    start_handoff(context, node)
    assert call(node, DurableHandoff, :prepare_stop, []) == {:error, :application_not_started}
    assert call(node, DurableHandoff.Host.Mark, :mark, [context.sup]) == :none
    # Other nodes are told that this one stops, and send no servers.
    assert {:ok, %{marked: true}} = status(context, node)
    {:ok, _apps} = call(node, Application, :ensure_all_started, [:durable_handoff])
    assert call(node, DurableHandoff, :prepare_stop, []) == :ok
  end

  test "this test case sees warnings of DurableServer", %{node: node} do
    assert call(node, Host, :node_ref, [:no_such_supervisor]) == nil
    assert {:warning, _metadata} = await_log(node, :host)
  end
end
