# DurableServer's own other backends are part of the real package only, and EKV is a package of its own.
other_backends = [EKV, DurableServer.Backends.EKVStore, DurableServer.Backends.MirrorStore]

if Enum.all?(other_backends, &Code.ensure_loaded?/1) do
  defmodule Store.OtherBackendsTest do
    @moduledoc "Drains of supervisors whose states are in EKV, or in two stores at once."

    # The first three have servers; the others hold EKV's data, so that a quorum can be lost without a node
    # that servers are on.
    use HandoffCase, nodes: 6

    alias DurableServer.Backends.{EKVStore, MirrorStore}

    @servers 60
    # How many servers have moved when the quorum is lost.
    @moved_before 10
    @ready_ms 30_000

    setup %{nodes: [a, b, c | members]} = context do
      {:ok, a: a, targets: [b, c], members: members, apps: %{context | nodes: [a, b, c]}}
    end

    describe "EKV" do
      setup %{apps: %{nodes: nodes} = apps, members: members} do
        name = String.to_atom(Cluster.unique("ekv"))
        directory = Temporary.path("ekv")

        member = fn number, node ->
          place = [data_dir: Path.join(directory, "#{number}"), node_id: number, cluster_size: 3]
          {:ok, app} = Cluster.start_children(node, [{EKV, [name: name, log: false] ++ place}])
          {number, node, app}
        end

        for node <- members ++ nodes, do: {:ok, _started} = Cluster.call(node, Application, :ensure_all_started, [:ekv])
        running = for {node, number} <- Enum.with_index(members, 1), do: member.(number, node)

        waits = [wait_for_route: @ready_ms, wait_for_quorum: @ready_ms]
        client = [name: name, mode: :client, region_routing: ["default"], log: false] ++ waits
        for node <- nodes, do: {:ok, _app} = Cluster.start_children(node, [{EKV, client}])
        opts = Keyword.put(apps.opts, :backend, {EKVStore, name: name})
        {:ok, apps: %{apps | opts: opts}, ekv: name, members: running, member: member}
      end

      test "every server moves with the state that its stop stores", %{apps: apps, a: a, targets: targets} do
        counts = start_counted(apps, a)
        assert {:ok, %{total: @servers, moved: @servers}} = drain(apps, a)
        assert_kept(apps, targets, counts)
      end

      test "the quorum is lost during a drain and comes back: no state is lost or set back", context do
        %{apps: apps, a: a, targets: targets, ekv: ekv, members: [_kept | lost], member: member} = context
        counts = start_counted(apps, a)
        draining = Task.async(fn -> drain(apps, a) end)
        wait_until(fn -> map_size(placement(apps, targets)) >= @moved_before end)

        for {_number, node, app} <- lost, do: :ok = Cluster.call(node, Application, :stop, [app])
        assert {:error, _no_quorum} = Cluster.call(a, EKV, :put, [ekv, "probe", 1, [consistent: true]])
        wait_until(fn -> failures(a, apps) > 0 end, @ready_ms)
        for {number, node, _app} <- lost, do: member.(number, node)

        assert {:ok, %{total: total, moved: moved}} = await_task(draining)
        assert total == @servers and moved > @moved_before
        assert_kept(apps, targets, counts)
      end
    end

    describe "the mirror" do
      setup %{apps: apps} do
        second = String.to_atom(Cluster.unique("second"))
        start_supervised!(%{id: second, start: {SimulatedStore, :start_link, [[name: second]]}})
        backend = {MirrorStore, primary: apps.opts[:backend], secondary: {SimulatedStore, name: second, node: node()}}
        {:ok, apps: %{apps | opts: Keyword.put(apps.opts, :backend, backend)}, second: {second, node()}}
      end

      test "every server moves, and both stores have its state", %{apps: apps, a: a, targets: targets} = context do
        counts = start_counted(apps, a)
        assert {:ok, %{total: @servers, moved: @servers}} = drain(apps, a)
        assert_kept(apps, targets, counts)

        for {key, count} <- counts, store <- [context.store, context.second] do
          assert %{body: %{state: %{"count" => ^count}}} = SimulatedStore.peek(store, storage_key(apps, key))
        end
      end

      test "the second store refuses writes during a drain: every server still moves", context do
        %{apps: apps, a: a, targets: targets, second: second} = context
        counts = start_counted(apps, a)
        SimulatedStore.pause(second, fn op, key -> op == :put and not String.contains?(key, "__nodes/") end)
        draining = Task.async(fn -> drain(apps, a) end)
        wait_until(fn -> SimulatedStore.paused(second) != [] end)
        :ok = SimulatedStore.configure(second, outage: :writes)
        :ok = SimulatedStore.resume(second)

        assert {:ok, %{total: @servers, moved: @servers}} = await_task(draining)
        assert_kept(apps, targets, counts)
      end
    end

    # Starts servers on `node` with a count that is not stored. Returns their counts.
    defp start_counted(context, node) do
      start_cluster(context)

      for {key, n} <- Enum.with_index(start_servers(context, node, @servers), 1), into: %{} do
        pid = whereis(context, node, key)
        for _ <- 1..n, do: ask(pid, :add)
        {key, n}
      end
    end

    # Attempts of the drain on `node` that have failed so far.
    defp failures(node, apps) do
      {:ok, %{progress: progress}} = status(apps, node)
      progress.failures
    end

    # A sweep, every 3 s on EKV, finds the servers that could not be moved.
    defp assert_kept(context, nodes, counts) do
      wait_until(fn -> Map.keys(counts) -- Map.keys(placement(context, nodes)) == [] end, @ready_ms)
      for {key, node} <- placement(context, nodes), do: await_on(context, node, key, node)

      # The servers that differ from before, with their values.
      now = for {key, node} <- placement(context, nodes), do: {key, ask(whereis(context, node, key), :get)}
      assert Enum.reject(now, &(&1 in counts)) == []
    end
  end
else
  IO.puts(
    :stderr,
    "test/store/other_backends_test.exs needs EKV and the real DurableServer on the code path, and tests nothing here"
  )
end
