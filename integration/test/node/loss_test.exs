defmodule Node.LossTest do
  @moduledoc "A Rust node is lost in the middle of a drain: the source's own engine decides the rest."

  use HandoffCase, nodes: 3

  # When the fault happens, a third of the servers has moved, and the moves of four others are held in the
  # middle.
  setup context do
    rust = RustNode.start(context.nodes)
    start_cluster(context)
    keys = start_servers(context, context.a, 30)
    listen_to_log(context, context.a)
    hold_after(context, 10)
    draining = Task.async(fn -> drain(context, context.a, max_concurrency: 4, concurrency: :fixed) end)
    wait_until(fn -> length(SimulatedStore.paused(context.store)) == 4 and moved(context) == 10 end)
    {:ok, rust: rust, keys: keys, draining: draining}
  end

  @tag guarantee: "A Rust node is never needed"
  test "the Rust node is killed: all servers still move, each once", %{rust: rust} = context do
    RustNode.signal(rust, "KILL")
    assert [{_name, {:down, _reason}}] = assert_goes_on(context)
  end

  @tag guarantee: "A Rust node is never needed"
  test "the Rust node hangs (SIGSTOP): the source goes on without it", %{rust: rust} = context do
    RustNode.signal(rust, "STOP")
    assert [{_name, :silent}] = assert_goes_on(context)
  end

  test "the Rust node is stopped (SIGTERM): it refuses the drain and ends", %{rust: rust} = context do
    RustNode.signal(rust, "TERM")
    assert [{_name, {:refused, :stopping}}] = assert_goes_on(context)
    assert RustNode.await_exit(rust) == "0"
    wait_until(fn -> RustNode.announced(context.a) == [] end)
  end

  @tag guarantee: "A Rust node is never needed"
  test "the Rust node's connection is cut: all servers still move", %{rust: rust, a: a} = context do
    # A wrong cookie keeps it from coming back.
    call(a, Node, :set_cookie, [rust.name, :cut_off])
    call(a, Node, :disconnect, [rust.name])
    # The source notices the lost connection, or finds no connection when it sends.
    assert [{_name, reason}] = assert_goes_on(context)
    assert reason in [{:down, :noconnection}, :noconnection]
  end

  # The four held moves end after the node is lost. They count, and no server moves twice.
  defp assert_goes_on(%{rust: rust, keys: keys, draining: draining} = context) do
    await_held(context, 4)
    name = rust.name
    {:warning, _line} = await_log(context.a, :executor_lost, %{node: name})
    SimulatedStore.resume(context.store)
    assert {:ok, report} = await_task(draining)
    assert %{total: 30, moved: 30, left: left, executor: :embedded, ended: :done, gap_ms: %{count: 30}} = report
    assert left == %{}
    assert report.targets |> Map.values() |> Enum.sum() == 30
    assert [{^name, _reason}] = report.executors_lost
    assert_all_run_on(context, keys, [context.b, context.c])
    wait_until(fn -> drain_processes(context.a) == [] end)
    report.executors_lost
  end

  defp moved(context) do
    case status(context, context.a) do
      {:ok, %{progress: %{moved: moved}}} -> moved
      _not_started -> 0
    end
  end
end
