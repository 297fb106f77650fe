defmodule Node.DeadlineTest do
  @moduledoc "A Rust node hangs, and the time of a shutdown ends before the source takes it for lost."

  use HandoffCase, nodes: 3

  # A Rust node counts as lost after two seconds without a message.
  @timeout_ms 1_000

  @tag guarantee: "The node never waits longer than `timeout_ms`"
  test "the Rust node is suspended (SIGSTOP): the shutdown goes on at the limit, and no state is lost",
       %{a: a, b: b, c: c} = context do
    rust = RustNode.start(context.nodes)
    [app | _apps] = start_cluster(context, handoff_on_shutdown: [timeout_ms: @timeout_ms])
    keys = start_unsynced(context, a, 6)
    RustNode.signal(rust, "STOP")
    watch = OnTime.watch(a)
    stopping = Task.async(fn -> stop_children(a, app) end)

    OnTime.assert_ended(watch, :shutdown, @timeout_ms)
    assert await_task(stopping) == :ok
    await_all_on(context, keys, [b, c])
    assert_counts(%{context | nodes: [b, c]}, keys, 1)
  end
end
