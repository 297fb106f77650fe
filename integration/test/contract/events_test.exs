defmodule Contract.EventsTest do
  @moduledoc "Group: the events of a key, in order, as another node receives them, and the result of `members`."

  use ClusterCase, nodes: 3

  setup context, do: start(context)

  test "a monitor of a key, of a prefix and of :all gets what matches, and nothing after demonitor",
       %{a: a, b: b, sup: sup} = context do
    [one, prefix, all] =
      for what <- ["room/1", "room/", :all] do
        {relay, :ok} = Relay.start(b, {Group, :monitor, [sup, what]})
        relay
      end

    for key <- ["room/1", "hall/1"], do: start_server(context, a, Counter, key)
    assert_receive {^one, {:group, [%Group.Event{type: :registered, key: "room/1", supervisor: ^sup}], _info}}
    assert [%{key: "room/1"}] = events(prefix, 1)
    # Events of different keys have no order.
    assert ["hall/1", "room/1"] = all |> events(2) |> Enum.map(& &1.key) |> Enum.sort()

    :ok = Relay.call(prefix, {Group, :demonitor, [sup, "room/"]})
    start_server(context, a, Counter, "room/2")
    :ok = call(a, Host, :terminate_child, [sup, "room/2"])
    # Events of one key have an order: with the second one here, every process on b has the first one.
    assert [%{key: "room/2", type: :registered}, %{key: "room/2", type: :unregistered}] = events(all, 2)

    for relay <- [one, prefix] do
      # It has forwarded what it had before.
      ^relay = Relay.call(relay, {:erlang, :self, []})
      refute_received {^relay, {:group, _, _}}
    end
  end

  test "a partition unregisters an owner on the other side; it is registered again when the partition heals", context do
    %{a: a, b: b, sup: sup} = context
    pid = start_server(context, a, Counter, "k")
    await_on(context, b, "k", a)
    {relay, :ok} = Relay.start(b, {Group, :monitor, [sup, "k"]})
    disconnect(a, b)
    assert [%{type: :unregistered, pid: ^pid}] = events(relay, 1)
    reconnect(a, b)
    assert [%{type: :registered, pid: ^pid}] = events(relay, 1)
  end

  test "events of a start, a stop and a second start", %{a: a, c: c, sup: sup} = context do
    {relay, :ok} = Relay.start(c, {Group, :monitor, [sup, "k"]})
    pid = start_server(context, a, Counter, "k", %{meta: %{region: "x"}})
    first = events(relay, 1)
    :ok = call(a, Host, :terminate_child, [sup, "k"])
    second = events(relay, 1)
    again = start_server(context, a, Counter, "k")
    names = %{pid => "first", again => "second"}
    record(context, "events: started, stopped, started", first ++ second ++ events(relay, 1), names)
  end

  test "events of a move", %{a: a, b: b, c: c, sup: sup} = context do
    old = start_server(context, a, Counter, "k")
    for node <- [b, c], do: await_on(context, node, "k", a)
    {relay, :ok} = Relay.start(c, {Group, :monitor, [sup, "k"]})
    {:ok, {new, _meta}} = move(context, a, Counter, "k", target_node: b)
    record(context, "events: moved", events(relay, 2), %{old => "old", new => "new"})
  end

  test "events of a crash, and of a node that is killed", %{a: a, c: c, sup: sup} = context do
    {relay, :ok} = Relay.start(c, {Group, :monitor, [sup, :all]})
    pid = start_server(context, a, Counter, "crashes")
    events(relay, 1)
    catch_exit(GenServer.call(pid, :crash))
    record(context, "events: crashed", events(relay, 1), %{pid => "old"})

    doomed = start_node()
    {:ok, _} = start_host(doomed, context.opts)
    pid = start_server(context, doomed, Counter, "dies")
    await_on(context, c, "dies", doomed)
    {dead, :ok} = Relay.start(c, {Group, :monitor, [sup, "dies"]})
    Cluster.kill(doomed)
    record(context, "events: its node was killed", events(dead, 1), %{pid => "old", doomed => "killed_node"})
  end

  # The server answers nothing until its running state is stored.
  test "events of a server whose first write fails after it was registered",
       %{a: a, c: c, sup: sup, store: store} = context do
    {relay, :ok} = Relay.start(c, {Group, :monitor, [sup, "k"]})
    SimulatedStore.pause(store, {:put, storage_key(context, "k")})
    child = {Counter, key: "k", initial_state: %{key: "k"}}
    # DurableServer's own limit of five seconds may be too short for this test.
    patient = [local_only: true, timeout: 60_000]
    start = Task.async(fn -> call(a, Host, :start_child, [sup, child, patient]) end)
    [%{pid: pid}] = registered = events(relay, 1)

    etag = Task.async(fn -> catch_exit(GenServer.call(pid, {:durable, :get_etag}, :infinity)) end)
    await_queued(pid, 1)
    assert Task.yield(etag, 0) == nil
    SimulatedStore.configure(store, outage: :writes)
    SimulatedStore.resume(store)

    record(context, "start_child: its first write fails", await_task(start))
    {reason, _call} = await_task(etag)
    record(context, "get_etag: its first write fails", reason)
    names = %{pid => "failed"}
    events = registered ++ events(relay, 1)
    record(context, "events: registered, and then its first write fails", events, names)
    left = Map.take(stored(context, "k").meta, [:status, :pid, :permanent])
    record(context, "stored: its first write fails", left, names)
  end

  test "registry members of a server's key and of heartbeats", %{a: a, b: b, sup: sup} = context do
    start_server(context, a, Counter, "k")
    await_on(context, b, "k", a)
    members = for node <- [a, b], do: call(node, Group, :members, [sup, "k"])
    record(context, "Group.members: a server's key, here and elsewhere", members)
    record(context, "Group.members: no such key", call(b, Group, :members, [sup, "nothing"]))
    [{_pid, facts} | _more] = call(b, Group, :members, [sup, "__heartbeat"])
    record(context, "Group.members: __heartbeat, the keys of its facts", facts |> Map.keys() |> Enum.sort())
  end

  test "the registered facts of a server", %{a: a, sup: sup} = context do
    start_server(context, a, Counter, "k", %{meta: %{region: "x"}})
    %{"k" => {_pid, meta}} = call(a, Host, :__local_global_members__, [sup])
    record(context, "__local_global_members__", meta, %{storage_key(context, "k") => "storage_key"})
    {_pid, meta} = call(a, Host, :lookup, [sup, "k"])
    record(context, "lookup", meta)
    record(context, "lookup: nothing", call(a, Host, :lookup, [sup, "nothing"]))
  end

  # The next `count` events, however many come in one message.
  defp events(_relay, 0), do: []

  defp events(relay, count) do
    assert_receive {^relay, {:group, events, _info}}
    events = for event <- events, event.key != "__heartbeat", do: Map.take(event, [:type, :pid, :reason, :key])
    assert length(events) <= count
    events ++ events(relay, count - length(events))
  end
end
