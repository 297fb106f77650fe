defmodule DurableHandoff.BetweenNodesTest do
  @moduledoc """
  Names and messages that nodes of another release use. A rename breaks rolling deploys: a node would find no
  process, or send messages that the other one ignores.
  """
  use ExUnit.Case, async: true

  alias DurableHandoff.Client.Server
  alias DurableHandoff.Host.Count
  alias DurableHandoff.Leftovers.Message
  alias DurableHandoff.Wire

  test "the names of processes that other nodes send to" do
    assert Server.name(MySup) == :"Elixir.MySup_handoff_waiting"
    assert Message.name(MySup) == :"Elixir.MySup_handoff_leftovers"
    assert Wire.endpoint_process() == :"Elixir.DurableHandoff.Agent"
    assert Wire.node_process() == :durable_handoff
  end

  test "the function that a draining node calls on the others" do
    assert Count == :"Elixir.DurableHandoff.Host.Count"
    assert Code.ensure_loaded?(Count) and function_exported?(Count, :here, 2)
  end

  test "an offer of leftovers, and the messages between receivers" do
    id = make_ref()
    offer = Message.offer(id, node(), [{"k", Room}], [self()])
    assert offer == %{version: 1, id: id, source: node(), servers: [{"k", Room}], line: [self()]}
    Message.ask(self(), :ready?)
    assert_received {:"$gen_call", _from, :ready?}
    Message.ask(self(), {:accept, offer})
    assert_received {:"$gen_call", _from, {:take, ^offer}}

    Message.stood_down(self(), self())
    Message.forward(self(), id, ["k"])
    Message.settled(self(), id)
    me = self()
    assert_received {:"Elixir.DurableHandoff.Leftovers", {:stood_down, ^me}}
    assert_received {:"Elixir.DurableHandoff.Leftovers", {:pass, ^id, ["k"]}}
    assert_received {:"Elixir.DurableHandoff.Leftovers", {:settled, ^id}}
  end
end
