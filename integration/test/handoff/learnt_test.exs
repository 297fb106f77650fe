defmodule Handoff.LearntTest do
  @moduledoc "The next drain, on any node, starts with what an earlier drain has learnt about the store."

  use HandoffCase, nodes: 3

  alias DurableHandoff.Drain.Learnt

  setup %{nodes: nodes} do
    for node <- nodes, do: {:ok, _apps} = call(node, Application, :ensure_all_started, [:durable_handoff])
    :ok
  end

  # On a busy machine the store may be unmeasured or look slow: when the measurement is delayed by a second,
  # or its reads by a tenth of a second. Then the test repeats the drain with another store.
  defp starts_wide?(context, drained) do
    Enum.any?(1..3, fn _time ->
      store = String.to_atom(unique("store"))
      start_supervised!({SimulatedStore, name: store}, id: store)
      context = another_supervisor(%{context | store: {store, node()}})
      opts = Keyword.put(context.opts, :backend, {SimulatedStore, name: store, node: node()})
      context = %{context | opts: opts}
      start_cluster(context)
      drained.(context).concurrency.highest >= 40
    end)
  end

  defp learnt(context, node), do: call(node, Learnt, :get, [identity(context, node), 1, :infinity])

  defp identity(context, node) do
    storage = call(node, DurableHandoff.Host, :storage, [context.sup])
    call(node, DurableHandoff.Host.StorageIdentity, :of, [storage])
  end

  test "the store limit that one drain has found reaches every node, and the next drain starts with it",
       %{a: a, b: b, c: c} = context do
    start_cluster(context)
    SimulatedStore.configure(context.store, latency_ms: 5, slots: 2)
    keys = start_servers(context, a, 80)
    {:ok, %{moved: 80}} = drain(context, a)
    # The result, and whether there is one, depends on how busy this machine is.
    wait_until(fn -> match?([_same], Enum.uniq(for node <- [a, b, c], do: learnt(context, node))) end)

    # Fewer servers than the measurement of a store requires, and fewer than a search would need.
    found = %{limit: 24, latency_us: 40_000, knee: false}
    call(a, Learnt, :tell, [identity(context, a), found, 50])
    for node <- [a, b, c], do: wait_until(fn -> learnt(context, node) == found end)
    moved = map_size(placement(context, [b]))
    {:ok, report} = drain(context, b)
    assert report.moved == moved
    assert report.concurrency.highest >= 24
    assert_all_run_on(context, keys, [c])
  end

  test "a drain of one move at a time leaves what other drains have learnt", %{a: a, b: b, c: c} = context do
    start_cluster(context)
    keys = start_servers(context, a, 40)
    # Moves that take less than this are no sign of a slower store.
    found = %{limit: 24, latency_us: 60_000_000, knee: false}
    call(a, Learnt, :tell, [identity(context, a), found, 50])
    for node <- [a, b], do: wait_until(fn -> learnt(context, node) == found end)
    # On a busy machine more than one at a time may look slower than one, which is a result of its own.
    {:ok, %{moved: 40, concurrency: %{highest: 1}}} = drain(context, a, max_concurrency: 1)
    assert learnt(context, a) == found
    moved = map_size(placement(context, [b]))
    {:ok, report} = drain(context, b)
    assert report.moved == moved and report.concurrency.highest >= min(moved, 24)
    assert_all_run_on(context, keys, [c])
  end

  test "a store without a limit: the drain starts with many moves at once", %{a: a} = context do
    assert starts_wide?(context, fn context ->
             start_servers(context, a, 160)
             SimulatedStore.configure(context.store, latency_ms: 80)
             # With so few servers a search would not reach a higher limit.
             {:ok, %{moved: 160} = report} = drain(context, a)
             report
           end)
  end

  test "the store is measured before the first move, while the drain does nothing else", %{a: a} = context do
    start_cluster(context)
    keys = start_servers(context, a, 64)
    hold_policy(a)
    SimulatedStore.pause(context.store, fn op, key -> op == :get and not String.contains?(key, "/s") end)
    {:ok, :started} = drain(context, a, await: false, eligible: &HandoffCase.held_policy/1)
    assert_receive {:held, drain}, 60_000
    assert drain_processes(a, [DurableHandoff.Drain.Look]) == []
    send(drain, :go_on)
    wait_until(fn -> SimulatedStore.paused(context.store) != [] end)
    SimulatedStore.resume(context.store)
    wait_until(fn -> match?({:ok, %{state: :drained}}, status(context, a)) end)
    assert keys -- Map.keys(placement(context, context.nodes -- [a])) == []
  end

  test "few servers with unsaved state do not make the store look slow", %{a: a} = context do
    assert starts_wide?(context, fn context ->
             keys = start_servers(context, a, 300)
             for key <- Enum.take_every(keys, 10), do: 1 = ask(whereis(context, a, key), :add)
             SimulatedStore.configure(context.store, latency_ms: 80)
             {:ok, %{moved: 300, stored: %{stored: 30}} = report} = drain(context, a)
             report
           end)
  end

  test "limits from other nodes are validated, and the oldest are dropped first", %{a: a} = context do
    start_cluster(context)
    valid = %{limit: 8, latency_us: 40_000, knee: true}
    storage = fn number -> String.pad_leading(Integer.to_string(number), 32, "0") end
    # Waits, unlike `Learnt.get/2`, and comes after the messages from here.
    get = &GenServer.call({Learnt, a}, {:get, storage.(&1)}, 60_000)

    for wrong <- [%{valid | limit: 0}, %{valid | limit: 1.5}, %{valid | latency_us: -1}, %{limit: 8}, :none],
        do: send({Learnt, a}, {Learnt, 1, storage.(1), wrong})

    send({Learnt, a}, {Learnt, 1, "short", valid})
    send({Learnt, a}, {Learnt, 1, :no_text, valid})
    send({Learnt, a}, {Learnt, 2, storage.(1), valid})
    assert get.(1) == nil

    for number <- 1..100, do: send({Learnt, a}, {Learnt, 1, storage.(number), Map.put(valid, :more, number)})
    assert get.(100) == valid
    assert get.(1) == nil
    assert Enum.count(1..100, get) == 64
  end
end
