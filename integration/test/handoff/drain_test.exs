defmodule Handoff.DrainTest do
  @moduledoc "`DurableHandoff.drain/2` on a healthy cluster."

  use HandoffCase, nodes: 3, patient: true

  # The functions that need a Drainer, with their further arguments.
  @of_a_drainer [drain: [], status: [], cancel: [], cordon: [], uncordon: [], rebalance: [], move: ["k"]]

  @tag guarantee: "Nothing is lost that a graceful shutdown would have kept"
  test "all servers move with their states, evenly spread, and no reservation remains", %{a: a, b: b, c: c} = context do
    # A slow target must not be given up.
    start_cluster(context, placement_erpc_timeout_cross_region_ms: 60_000)
    keys = for n <- 1..60, do: "s#{n}"

    states =
      for {key, n} <- Enum.with_index(keys), into: %{} do
        pid = start_server(context, a, Counter, key, %{profile: Counter.profile(n)})
        assert ask(pid, :add) == 1
        {key, :erlang.phash2(ask(pid, :state))}
      end

    assert {:ok, report} = drain_heard(context, a, [b, c])
    assert %{total: 60, moved: 60, left: left, ended: :done, executor: :embedded, first_errors: []} = report
    assert left == %{}
    assert Enum.sort(Map.keys(report.targets)) == Enum.sort([Atom.to_string(b), Atom.to_string(c)])
    assert Enum.min(Map.values(report.targets)) >= 0.9 * Enum.max(Map.values(report.targets))
    assert report.gap_ms.count == 60
    assert_all_run_on(context, keys, [b, c])

    for {key, hash} <- states do
      assert :erlang.phash2(ask(await_moved(context, b, key, a), :state)) == hash
    end
  end

  test "no process and no table of the drain is left after it", %{a: a} = context do
    start_cluster(context)
    start_servers(context, a, 20)
    before = call(a, :ets, :all, [])
    {:ok, %{moved: 20}} = drain(context, a)
    wait_until(fn -> drain_processes(a) == [] end)
    # Processes of the previous test may end only now.
    wait_until(fn -> call(a, :ets, :all, []) -- before == [] end)
  end

  test "a drain without servers returns at once, with nothing to report", %{a: a} = context do
    start_cluster(context)
    assert {:ok, %{total: 0, ended: :done}} = drain(context, a)
  end

  test "the engine refuses a drain: no event says that it has started", %{a: a} = context do
    levels = for n <- 1..65, do: {:"LEVEL_#{n}", 0}
    start_cluster(context, sticky_placement: %{Counter => levels ++ [any: 0]})
    start_servers(context, a, 1)
    listen_to_telemetry(a)
    assert {:error, {:invalid, [_problem]}} = drain(context, a, force: true)
    assert_receive {:event, [:durable_handoff, :fallback], _count, %{reason: {:drain_failed, {:invalid, _problems}}}}
    refute_received {:event, [:durable_handoff, :drain, :start], _measured, _about}
  end

  @tag guarantee: "At most `max_concurrency` servers are down at any time"
  test "at most max_concurrency moves are in flight", %{a: a, store: store} = context do
    start_cluster(context, quiet(context))
    start_servers(context, a, 20)
    SimulatedStore.configure(store, latency_ms: 5)
    SimulatedStore.reset_stats(store)
    assert {:ok, %{moved: 20, concurrency: %{highest: 2}}} = drain(context, a, max_concurrency: 2, concurrency: :fixed)
    assert SimulatedStore.stats(store).max_in_flight <= 2
  end

  test "at most max_concurrency_per_target moves are in flight to each of two targets", %{a: a} = context do
    start_cluster(context)
    start_servers(context, a, 10)
    options = [max_concurrency: 8, max_concurrency_per_target: 1, concurrency: :fixed]
    draining = start_held(context, 2, fn -> drain(context, a, options) end)
    wait_until(fn -> match?({:ok, %{progress: %{in_flight: 2, waits_for: nil}}}, status(context, a)) end)
    SimulatedStore.resume(context.store)
    assert {:ok, %{moved: 10, concurrency: %{highest: 2}}} = await_task(draining)
  end

  test "the drained node starts no servers, and other nodes do not choose it", %{a: a, b: b} = context do
    start_cluster(context)
    {:ok, _report} = drain(context, a)
    late = {Counter, key: "late", initial_state: %{}}
    assert {:error, _reason} = call(a, Host, :start_child, [context.sup, late, [local_only: true]])
    wait_until(fn -> a not in eligible(context, b) end)
  end

  test "a server would wait in a callback for a drain that moves it: refused, unless it does not wait",
       %{a: a, b: b, c: c} = context do
    start_cluster(context)
    keys = start_servers(context, a, 3)
    drain = &{:apply, DurableHandoff, :drain, [context.sup, &1]}
    server = whereis(context, a, "s1")
    assert {:error, :calling_self} = GenServer.call(server, drain.([]), 60_000)
    assert {:ok, %{state: :idle, cordoned: false}} = status(context, a)
    assert {:ok, :started} = GenServer.call(server, drain.(await: false), 60_000)
    await_all_on(context, keys, [b, c])
  end

  test "a second drain moves the servers that the first could not", %{a: a, b: b, nodes: nodes} = context do
    start_handoff(context, a)
    keys = start_servers(context, a, 5)
    assert {:ok, %{moved: 0, left: %{no_target: 5}}} = drain(context, a, force: true)
    assert_all_run_on(context, keys, [a])

    start_handoff(context, b)
    await_heartbeats(nodes -- [Enum.at(nodes, 2)], context.sup)
    assert {:ok, %{total: 5, moved: 5}} = drain(context, a)
    assert_all_run_on(context, keys, [b])
  end

  test "two concurrent drain/2 calls share one drain", %{a: a, store: store} = context do
    start_cluster(context)
    start_servers(context, a, 3)
    first = start_held(context, 3, fn -> drain(context, a) end)
    second = Task.async(fn -> drain(context, a, timeout_ms: 1) end)
    wait_until(fn -> drain_waiters(context, a) == 2 end)
    SimulatedStore.resume(store)
    assert {:ok, %{moved: 3} = report} = await_task(first)
    assert {:ok, ^report} = await_task(second)
  end

  test "status/1 before, during and after a drain", %{a: a, store: store} = context do
    start_cluster(context)
    start_servers(context, a, 3)
    sup = context.sup
    assert {:ok, %{supervisor: ^sup, state: :idle, progress: nil, report: nil}} = status(context, a)

    draining = start_held(context, 3, fn -> drain(context, a) end)
    # The drain shows this when it has started all three.
    begun = &match?({:ok, %{state: :draining, progress: %{total: 3, in_flight: 3, moved: 0}}}, &1)
    wait_until(fn -> begun.(status(context, a)) end)
    SimulatedStore.resume(store)
    {:ok, report} = await_task(draining)
    assert {:ok, %{state: :drained, progress: %{moved: 3, in_flight: 0}, report: ^report}} = status(context, a)
  end

  test "a misspelt supervisor: one answer from all functions, with the name that is near", context do
    # The application has the list of names.
    a = start_node()
    {:ok, _apps} = call(a, Application, :ensure_all_started, [:durable_handoff])
    start_handoff(context, a)
    misspelt = :"#{context.sup}x"
    unknown = {:error, {:unknown_supervisor, %{given: misspelt, did_you_mean: context.sup}}}

    for {function, more} <- [{:plan, []} | @of_a_drainer] do
      assert {function, call(a, DurableHandoff, function, [misspelt | more])} == {function, unknown}
    end

    unknown = {:error, {:unknown_supervisor, %{given: :no_such_supervisor, did_you_mean: nil}}}
    assert call(a, DurableHandoff, :plan, [:no_such_supervisor]) == unknown
  end

  test "without a Drainer there is an error, not a crash", %{a: a} = context do
    start_host(a, context.opts)

    for {function, more} <- @of_a_drainer do
      assert {function, call(a, DurableHandoff, function, [context.sup | more])} == {function, {:error, :no_drainer}}
    end

    assert {:ok, %{total: 0}} = call(a, DurableHandoff, :plan, [context.sup, []])
  end

  test "an invalid override raises in the caller", %{a: a} = context do
    start_cluster(context)
    message = ~r/:max_attempts got 0, expected a positive integer/
    assert_raise ArgumentError, message, fn -> drain(context, a, max_attempts: 0) end
  end

  test "the named Rust node does not exist: one warning, and the embedded engine drains", %{a: a} = context do
    start_cluster(context)
    start_servers(context, a, 2)
    listen_to_log(context, a)
    assert {:ok, %{moved: 2, executor: :embedded}} = drain(context, a, executor: {:node, :rust@nowhere})
    assert_receive {:log, ^a, :warning, :no_executor, %{node: :rust@nowhere}}
    refute_received {:log, ^a, :warning, _another, _metadata}
  end

  test "the start and the end of a drain are logged", %{a: a} = context do
    start_cluster(context)
    start_servers(context, a, 2)
    listen_to_log(context, a)
    {:ok, _report} = drain(context, a)
    # Between the two there may be progress lines.
    {:info, %{servers: 2, excluded: 0, targets: 2}} = await_log(a, :drain_started)
    {:info, %{report: %{total: 2, moved: 2}}} = await_log(a, :drain_ended)
  end

  test "telemetry events of a drain: start, attempts, fallback and stop", %{b: b} = context do
    # A node for this test only, because it keeps the :telemetry module that the test defines.
    source = start_node()
    context = %{context | nodes: [source, b]}
    start_cluster(context)
    start_server(context, source, Counter, "fine")
    start_server(context, source, Troublesome, "broken", %{count: 0})
    Troublesome.arm(b, "broken", :init, :ignore)
    listen_to_telemetry(source)
    sup = context.sup
    {:ok, report} = drain(context, source, executor: {:node, :rust@nowhere})

    assert_receive {:event, [:durable_handoff, :fallback], %{count: 1}, %{reason: {:no_executor, :rust@nowhere}}}
    assert_receive {:event, [:durable_handoff, :drain, :start], %{servers: 2, excluded: 0}, %{supervisor: ^sup}}

    assert_receive {:event, [:durable_handoff, :attempt, :stop], %{duration: duration},
                    %{supervisor: ^sup, key: "fine", module: Counter, attempt: 1, outcome: outcome}}

    assert is_integer(duration)
    assert outcome in [{:moved, nil}, :retry_same]

    assert_receive {:event, [:durable_handoff, :attempt, :exception], _duration,
                    %{key: "broken", kind: :error, outcome: {:displaced, :server}}}

    assert_receive {:event, [:durable_handoff, :drain, :stop], %{total: 2, moved: 1, left: 1}, %{report: ^report}}
    Troublesome.disarm(b, "broken", :init)
  end

  test "a long drain reports progress every second", %{a: a, store: store} = context do
    start_cluster(context)
    start_servers(context, a, 2)
    listen_to_log(context, a)
    hold_reads(context)
    draining = Task.async(fn -> drain(context, a) end)
    {:info, _progress} = await_log(a, :drain_progress, %{total: 2, moved: 0, in_flight: 2})
    SimulatedStore.resume(store)
    await_task(draining)
  end
end
