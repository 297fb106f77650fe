defmodule Contract.RegistryTest do
  @moduledoc "Group: members and events, as other nodes see them."

  use ClusterCase, nodes: 2

  setup %{nodes: [a, b]} = context do
    start(context)
    {:ok, a: a, b: b}
  end

  test "an event for a start and for a stop anywhere in the cluster", %{a: a, b: b, sup: sup} = context do
    {relay, :ok} = Relay.start(b, {Group, :monitor, [sup, "room/1"]})
    pid = start_server(context, a, Counter, "room/1")
    start_server(context, a, Counter, "room/2")

    assert %Group.Event{key: "room/1", pid: ^pid, supervisor: ^sup} = next_event(relay, :registered)
    :ok = call(a, Host, :terminate_child, [sup, "room/1"])
    assert %Group.Event{key: "room/1", pid: ^pid} = next_event(relay, :unregistered)
    refute_received {^relay, {:group, _, _}}
  end

  test "a prefix and :all match; after demonitor no event arrives", %{a: a, b: b, sup: sup} = context do
    {prefix, :ok} = Relay.start(b, {Group, :monitor, [sup, "room/"]})
    {all, :ok} = Relay.start(b, {Group, :monitor, [sup, :all]})
    start_server(context, a, Counter, "room/1")
    start_server(context, a, Counter, "hall/1")
    assert %{key: "room/1"} = next_event(prefix, :registered)
    # Events of different keys have no order.
    assert ["hall/1", "room/1"] = Enum.sort(for _ <- 1..2, do: next_event(all, :registered).key)

    :ok = Relay.call(prefix, {Group, :demonitor, [sup, "room/"]})
    start_server(context, a, Counter, "room/2")
    assert %{key: "room/2"} = next_event(all, :registered)
    refute_received {^prefix, {:group, _, _}}
  end

  test "a server that moves: unregistered on the source, then registered on the target",
       %{a: a, b: b, sup: sup} = context do
    old = start_server(context, a, Counter, "k")
    await_on(context, b, "k", a)
    {relay, :ok} = Relay.start(b, {Group, :monitor, [sup, "k"]})
    {:ok, {new, _}} = move(context, a, Counter, "k", target_node: b)

    assert %{pid: ^old} = next_event(relay, :unregistered)
    assert %{pid: ^new} = next_event(relay, :registered)
  end

  test "a partition unregisters an owner on the other side; it is registered again when the partition heals", context do
    %{a: a, b: b, sup: sup} = context
    pid = start_server(context, a, Counter, "k")
    await_on(context, b, "k", a)
    {relay, :ok} = Relay.start(b, {Group, :monitor, [sup, "k"]})
    disconnect(a, b)
    assert %{pid: ^pid} = next_event(relay, :unregistered)
    reconnect(a, b)
    assert %{pid: ^pid} = next_event(relay, :registered)
  end

  defp next_event(relay, type) do
    assert_receive {^relay, {:group, [%Group.Event{type: ^type} = event], _info}}
    event
  end
end
