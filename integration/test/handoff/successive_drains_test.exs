defmodule Handoff.SuccessiveDrainsTest do
  @moduledoc "Drains that follow each other faster than heartbeats, as in a deploy."

  use HandoffCase, nodes: 4

  # Long enough that no heartbeat after the first is written in a test.
  @no_more_heartbeats [heartbeat_interval_ms: 45_000, handoff_on_shutdown: [prefer: :none]]

  test "the second drain knows what the first one moved, although no heartbeat says so yet",
       %{nodes: nodes} = context do
    [a, b, c, d] = nodes
    start_cluster(context, @no_more_heartbeats)
    keys = start_servers(context, a, 20)
    # So that the first drain has one target: the heartbeats of b and d say that nothing runs there.
    # Again where c has not heard of the stop yet.
    for key <- keys, do: wait_until(fn -> match?({:ok, _}, rehome(context, a, key, c)) end)
    # A rehome returns before the registry of the source has heard of the end of what it stopped.
    wait_until(fn -> call(a, DurableHandoff.Host, :count, [context.sup]) == 0 end)
    more = for n <- 1..20, do: "t#{n}"
    for key <- more, do: start_server(context, b, Counter, key, %{})

    assert {:ok, %{moved: 20, targets: targets}} = drain(context, b)

    # By the heartbeats alone all three are empty, and c would get a third. How the others share depends on how busy this machine is:
    # a target that refused rests.
    assert Enum.sort(Map.keys(targets)) == Enum.sort([Atom.to_string(a), Atom.to_string(d)])
    assert_all_run_on(context, keys ++ more, [a, c, d])
  end

  defp rehome(context, source, key, target) do
    child = {Counter, key: key, initial_state: %{}}
    call(source, Host, :rehome_child, [context.sup, child, [target_node: target]])
  end
end
