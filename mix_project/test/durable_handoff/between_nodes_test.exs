defmodule DurableHandoff.BetweenNodesTest do
  @moduledoc """
  Names and messages that nodes of another release use. A rename breaks rolling deploys: a node would find no
  process, or send messages that the other one ignores.
  """
  use ExUnit.Case, async: true

  import DurableHandoff.Eventually

  alias DurableHandoff.Client.Server
  alias DurableHandoff.Drain.Learnt
  alias DurableHandoff.Host.Count
  alias DurableHandoff.Leftovers.Message
  alias DurableHandoff.{Status, Wire}

  test "the names of processes that other nodes send to" do
    assert Server.name(MySup) == :"Elixir.MySup_handoff_waiting"
    assert Message.name(MySup) == :"Elixir.MySup_handoff_leftovers"
    assert Wire.endpoint_process() == :"Elixir.DurableHandoff.Agent"
    assert Wire.node_process() == :durable_handoff
  end

  test "the functions that a node calls on the others" do
    for {module, function, arity} <- [
          # By a drain.
          {:"Elixir.DurableHandoff.Host.Count", :here, 2},
          # By `move/3`.
          {:"Elixir.DurableHandoff.Move", :as_owner, 3},
          # By `mix durable_handoff.doctor`.
          {:"Elixir.DurableHandoff.Doctor", :run, 1}
        ],
        do: assert(Code.ensure_loaded?(module) and function_exported?(module, function, arity), "#{module}.#{function}")
  end

  # A node that goes down answers also after its supervisor has stopped.
  test "what a node answers that is asked by a drain" do
    sup = :"#{__MODULE__}.Stopping"
    :ets.new(:"#{sup}_handoff_status", [:named_table, :public])
    Status.put_marked(sup)
    answer = %{servers: 0, capacity: nil, stopping: true, missing: [], prefix: nil, storage: nil}
    assert %{at_ms: at_ms} = answered = Count.here(sup, [Room])
    assert is_integer(at_ms) and Map.delete(answered, :at_ms) == answer
  end

  test "what a drain has learnt of the store" do
    storage = String.pad_leading("#{System.unique_integer([:positive])}", 32, "b")
    learnt = %{limit: 8, latency_us: 40_000, knee: false}
    of_another_node = {:"Elixir.DurableHandoff.Drain.Learnt", 1, storage, Map.put(learnt, :capped, true)}
    send(:"Elixir.DurableHandoff.Drain.Learnt", of_another_node)
    assert {Learnt.get(storage, 8, :infinity), Learnt.get(storage, 9, :infinity)} == {learnt, nil}

    teller = Task.async(fn -> receive(do: (:go -> Learnt.tell(storage, learnt, 8))) end)
    :erlang.trace(teller.pid, true, [:send])
    send(teller.pid, :go)
    assert :ok = await_task(teller)
    assert_receive {:trace, _pid, :send, ^of_another_node, _to}
  end

  test "an offer of leftovers, and the messages between receivers" do
    id = make_ref()
    offer = Message.offer(id, node(), [{"k", Room}], [self()], 4)
    assert offer == %{version: 1, id: id, source: node(), servers: [{"k", Room}], line: [self()], receivers: 4}
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
    assert Message.read({:"Elixir.DurableHandoff.Leftovers", {:resumed, :app@host}}) == {:resumed, :app@host}
  end
end
