defmodule Node.LinkTest do
  @moduledoc "The connection to a Rust node is full. A suspended BEAM node, which reads nothing, acts as that node."

  use ExUnit.Case

  import Cluster

  alias DurableHandoff.Executor.Link
  alias DurableHandoff.Wire

  @second 1_000_000
  @job %{supervisor: "Sup", storage: "0f", modules: ["M"], config: %{}, entries: [], view: %{now_ms: 0, nodes: []}}

  # A link whose node has answered at 0 and is suspended now. It reads nothing, and its connection is full.
  setup do
    node = start_node()
    {relay, _pid} = Relay.start(node)
    true = Relay.call(relay, {Process, :register, [relay, Wire.node_process()]})
    {:ok, link, _wake} = relay |> Link.open(@job, 60 * @second, 0) |> Link.flush(0)
    assert_receive {^relay, {:durable_handoff, 1, :drain_open, id, _pid, _spec}}, 60_000
    {:ok, link: link, id: id, relay: relay, go_on: fill_connection(node)}
  end

  test "already when the drain opens its link: nothing blocks, and the link is lost after two seconds", %{relay: relay} do
    assert {:ok, link, _wake} = relay |> Link.open(@job, 60 * @second, 0) |> Link.flush(0)
    assert {:ok, link, _wake} = Link.flush(link, 2 * @second - 1)
    assert Link.flush(link, 2 * @second) == {:lost, :congested}
    # A call that waits for the connection returns only when it is lost.
    assert node(relay) in Node.list()
  end

  test "for two seconds: the link is lost, and nothing has blocked", %{link: link, id: id, relay: relay} do
    # The keepalive cannot be sent. It is tried again soon.
    assert {:ok, link, wake} = Link.flush(link, div(@second, 2))
    assert wake < @second
    # The node still sends.
    assert {:ok, link, []} = Link.handle_message(link, 2 * @second, {:durable_handoff, 1, :progress, id, %{}})
    assert {:ok, link, _wake} = Link.flush(link, div(5 * @second, 2) - 1)
    assert Link.flush(link, div(5 * @second, 2)) == {:lost, :congested}
    # A call that waits for the connection returns only when it is lost.
    assert Link.close(link) == :ok
    assert node(relay) in Node.list()
  end

  test "for a shorter time: what waits is sent then, in order", %{link: link, id: id, relay: relay, go_on: go_on} do
    assert {:ok, link, []} = Link.handle_message(link, 0, {:durable_handoff, 1, :opened, id})
    assert {:ok, link, _wake} = Link.flush(link, 0)
    :ok = go_on.()
    wait_until(fn -> Wire.send(relay, :full?) == :ok end)
    assert {:ok, link, wake} = Link.flush(link, @second)
    assert wake == div(3 * @second, 2)
    assert_receive {^relay, {:durable_handoff, 1, :view, ^id, 1, 1, 0, []}}, 60_000
    assert_receive {^relay, {:durable_handoff, 1, :drain_start, ^id, _left_ms}}, 60_000
    # A later time counts from zero.
    assert link.blocked_us == nil
  end
end
