defmodule Handoff.SuccessiveDrainsTest do
  @moduledoc "Drains that follow each other faster than heartbeats, as in a deploy."

  use HandoffCase, nodes: 4, patient: true

  # So long that no node writes a second heartbeat during a test.
  @no_more_heartbeats [
    heartbeat_interval_ms: 45_000,
    heartbeat_staleness_threshold_ms: 90_000,
    handoff_on_shutdown: [prefer: :none]
  ]

  test "the second drain counts the servers that the first moved, before any heartbeat has them",
       %{nodes: nodes} = context do
    [a, b, c, d] = nodes
    start_cluster(context, @no_more_heartbeats)
    keys = start_servers(context, a, 20)
    # This gives the first drain one target: the heartbeats of b and d say that no supervisor runs there. The
    # rehome is repeated while c has not received the stop.
    for key <- keys, do: wait_until(fn -> match?({:ok, _}, rehome(context, a, key, c)) end)
    # A rehome returns before the source's registry has removed the stopped server.
    wait_until(fn -> call(a, DurableHandoff.Host, :count, [context.sup]) == 0 end)
    more = for n <- 1..20, do: "t#{n}"
    for key <- more, do: start_server(context, b, Counter, key, %{})

    # By the heartbeats alone all three targets are empty, and c would get a third of the servers.
    assert {:ok, %{moved: 20, targets: targets}} = drain_heard(context, b, [a, c, d])
    assert targets == %{Atom.to_string(a) => 10, Atom.to_string(d) => 10}
    assert_all_run_on(context, keys ++ more, [a, c, d])
  end

  defp rehome(context, source, key, target) do
    child = {Counter, key: key, initial_state: %{}}
    call(source, Host, :rehome_child, [context.sup, child, [target_node: target]])
  end
end
