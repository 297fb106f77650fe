defmodule Handoff.FullConnectionTest do
  @moduledoc "The connection to a node is full: the node is suspended, and reads nothing."

  use ExUnit.Case

  import Cluster

  alias DurableHandoff.Host.Count
  alias DurableHandoff.Leftovers.Message

  setup do
    [full, other] = start_nodes(2)
    {:ok, full: full, other: other, supervisor: String.to_atom(unique("sup"))}
  end

  test "asking several nodes takes no longer than its time, and the answers of the others count",
       %{full: full, other: other, supervisor: supervisor} do
    # Both have loaded the module that answers.
    assert {answers, []} = Count.ask_each(supervisor, [], [full, other], 60_000)
    fill_connection(full)
    assert Count.ask_each(supervisor, [], [full, other], 5_000) == {Map.delete(answers, "#{full}"), ["#{full}"]}
    # A call that waits for the connection returns only when it is lost.
    assert full in Node.list()
  end

  test "messages about leftovers are sent without waiting, and arrive later", %{full: full, supervisor: supervisor} do
    {relay, _pid} = Relay.start(full)
    true = Relay.call(relay, {Process, :register, [relay, Message.name(supervisor)]})
    go_on = fill_connection(full)
    id = make_ref()
    :ok = Message.resumed(supervisor)
    :ok = Message.stood_down(relay, self())
    :ok = Message.forward(relay, id, ["k"])
    :ok = Message.settled(relay, id)
    assert full in Node.list()
    :ok = go_on.()

    sent = [{:resumed, node()}, {:stood_down, self()}, {:forwarded, id, ["k"]}, {:settled, id}]

    arrived =
      for _message <- sent do
        assert_receive {^relay, message}, 60_000
        Message.read(message)
      end

    assert Enum.sort(arrived) == Enum.sort(sent)
  end
end
