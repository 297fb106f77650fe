defmodule GroupTest do
  @moduledoc "The registry on three nodes, without anything else of the stand-in."

  use ExUnit.Case

  import Cluster

  setup_all do
    {:ok, nodes: start_nodes(3)}
  end

  setup %{nodes: [a, b, c] = nodes} do
    group = String.to_atom(unique("group"))
    for node <- nodes, do: {:ok, _app} = start_children(node, replica(group))

    # Two replicas that have each other's rows know each other.
    for node <- nodes, do: {_relay, :ok} = Relay.start(node, {Group, :join, [group, "here", node]})
    for node <- nodes, do: wait_until(fn -> length(call(node, Group, :members, [group, "here"])) == 3 end)

    {:ok, group: group, a: a, b: b, c: c}
  end

  test "a process registers new metadata: the event has the old metadata", %{group: group, a: a, b: b} do
    {watcher, :ok} = Relay.start(b, {Group, :monitor, [group, "k"]})
    {pid, :ok} = Relay.start(a, {Group, :register, [group, "k", :first]})
    :ok = Relay.call(pid, {Group, :register, [group, "k", :second]})
    assert_receive {^watcher, {:group, [%{type: :registered, meta: :first, previous_meta: nil}], _}}
    assert_receive {^watcher, {:group, [%{type: :registered, meta: :second, previous_meta: :first}], _}}
    :ok = Relay.call(pid, {Group, :unregister, [group, "k"]})
    assert_receive {^watcher, {:group, [%{type: :unregistered, meta: :second, reason: nil}], _}}
  end

  test "many processes join one key; events distinguish leaving from an exit", %{group: group, a: a, b: b, c: c} do
    {watcher, :ok} = Relay.start(c, {Group, :monitor, [group, "room/"]})
    {one, :ok} = Relay.start(a, {Group, :join, [group, "room/1", 1]})
    {two, :ok} = Relay.start(b, {Group, :join, [group, "room/1", 2]})
    wait_until(fn -> Enum.sort(call(c, Group, :members, [group, "room/1"])) == Enum.sort([{one, 1}, {two, 2}]) end)
    :ok = Relay.call(one, {Group, :leave, [group, "room/1"]})
    Process.exit(two, :kill)
    assert_receive {^watcher, {:group, [%{type: :left, pid: ^one, reason: nil}], _}}
    assert_receive {^watcher, {:group, [%{type: :left, pid: ^two, reason: :killed}], _}}
  end

  test "a live process of this node keeps its key", %{group: group, a: a} do
    {pid, :ok} = Relay.start(a, {Group, :register, [group, "k", 1]})
    assert {_second, {:error, {:taken, {^pid, 1}}}} = Relay.start(a, {Group, :register, [group, "k", 2]})
  end

  test "a partition heals with two registrations of a key: the newer stays, the older process is told to exit",
       context do
    %{group: group, a: a, b: b, nodes: nodes} = context
    {old, :ok} = Relay.start(a, {Group, :register, [group, "k", :old]})
    for node <- nodes, do: wait_until(fn -> call(node, Group, :lookup, [group, "k"]) == {old, :old} end)
    ref = Process.monitor(old)
    disconnect(a, b)
    wait_until(fn -> call(b, Group, :lookup, [group, "k"]) == nil end)
    {new, :ok} = Relay.start(b, {Group, :register, [group, "k", :new]})
    reconnect(a, b)

    assert_receive {:DOWN, ^ref, :process, ^old, {:group_registry_conflict, "k", _meta}}
    for node <- nodes, do: wait_until(fn -> call(node, Group, :lookup, [group, "k"]) == {new, :new} end)
  end

  test "a node disconnects and reconnects: changes made in between arrive", %{group: group, a: a, b: b} do
    {stays, :ok} = Relay.start(a, {Group, :register, [group, "stays", 1]})
    {goes, :ok} = Relay.start(a, {Group, :register, [group, "goes", 1]})
    wait_until(fn -> call(b, Group, :lookup, [group, "goes"]) == {goes, 1} end)
    disconnect(a, b)
    wait_until(fn -> call(b, Group, :lookup, [group, "stays"]) == nil end)
    Process.exit(goes, :kill)
    # Otherwise a may send the row as a change, after it has sent all rows.
    wait_until(fn -> call(a, Group, :lookup, [group, "goes"]) == nil end)
    {comes, :ok} = Relay.start(a, {Group, :register, [group, "comes", 1]})
    reconnect(a, b)

    # b records the events in this order.
    expected = [{stays, 1}, nil, {comes, 1}]
    wait_until(fn -> for(key <- ["stays", "goes", "comes"], do: call(b, Group, :lookup, [group, key])) == expected end)
  end

  test "a node that joins later receives all registrations", %{group: group, a: a} do
    {pid, :ok} = Relay.start(a, {Group, :register, [group, "k", 1]})
    late = start_node()
    {:ok, _app} = start_children(late, replica(group))
    wait_until(fn -> call(late, Group, :lookup, [group, "k"]) == {pid, 1} end)
  end

  defp replica(group), do: [{Group.Replica, group}]
end
