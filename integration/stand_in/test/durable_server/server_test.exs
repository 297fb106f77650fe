defmodule DurableServer.ServerTest do
  @moduledoc "One node: callbacks, when state is stored, crashes, and which starts are allowed."

  use ExUnit.Case, async: true

  import ClusterCase, only: [await_tasks: 1]
  import ExUnit.CaptureLog

  alias DurableServer.Supervisor, as: Host

  @init_opts %{"auto" => [auto_sync: true]}

  setup do
    store = String.to_atom(Cluster.unique("store"))
    start_supervised!({SimulatedStore, name: store})
    [name: sup, prefix: prefix] = names = Cluster.unique_options()
    # No sweep starts a server that a test has stopped.
    opts =
      names ++ [backend: {SimulatedStore, name: store}, init_info: @init_opts, initial_discovery_delay_ms: 3_600_000]

    start_supervised!({Host, opts})
    :ok = Host.wait_until_ready(sup)
    {:ok, sup: sup, store: {store, node()}, prefix: prefix, opts: opts}
  end

  test "init/2 gets the server's info, load_state the version that wrote the state", context do
    pid = start(context, "k")
    assert %{old_vsn: nil, n: 0, info: %{"auto" => [auto_sync: true], key: "k"}} = state(pid)
  end

  test "handle_cast, handle_info and handle_continue can also sync", context do
    pid = start(context, "k")
    set = fn n -> fn state -> {:noreply, %{state | n: n}, :sync} end end
    GenServer.cast(pid, {:do, set.(1)})
    wait_stored(context, "k", 1)
    send(pid, {:do, set.(2)})
    wait_stored(context, "k", 2)
    GenServer.cast(pid, {:do, fn state -> {:noreply, state, {:continue, {:do, set.(3)}}} end})
    wait_stored(context, "k", 3)
  end

  test "a callback that returns :sync and stops stores the state before the stop", context do
    pid = start(context, "k")
    assert :bye = GenServer.call(pid, {:do, fn state -> {:stop, :normal, :bye, %{state | n: 4}} end})
    wait_stored(context, "k", 4)
  end

  test "with auto_sync changes are stored automatically, without it only at a stop", context do
    [auto, manual] = for key <- ["auto", "manual"], do: start(context, key)
    for pid <- [manual, auto], do: set(pid, 5)
    wait_stored(context, "auto", 5)
    assert stored(context, "manual").state == %{"n" => 0}
    :ok = Host.terminate_child(context.sup, manual)
    assert stored(context, "manual").state == %{"n" => 5}
  end

  test "a failed automatic sync is tried again with the next change", context do
    pid = start(context, "auto")
    SimulatedStore.fail_next(context.store, :put, context.prefix <> "auto", :slow_down)

    log =
      capture_log(fn ->
        set(pid, 1)
        Cluster.wait_until(fn -> SimulatedStore.stats(context.store).error == 1 end)
        set(pid, 2)
        wait_stored(context, "auto", 2)
      end)

    assert log =~ "slow_down"
  end

  test "crashes are counted; after the fifth only an explicit start brings it back", context do
    capture_log(fn ->
      for n <- 1..5 do
        pid = start(context, "k")
        catch_exit(GenServer.call(pid, {:do, fn _state -> raise "crash #{n}" end}))

        Cluster.wait_until(fn ->
          length(stored(context, "k").meta.crash_history) == n and Host.lookup(context.sup, "k") == nil
        end)
      end
    end)

    assert %{status: :permanently_crashed, crash_history: [%{reason: last} | _]} = stored(context, "k").meta
    assert last =~ "crash 5"
    assert {:ok, _} = Host.start_child(context.sup, child("k"))
  end

  test "a server that is stopped for good can be started again, a cordoned one cannot", context do
    for {status, outcome} <- [cordoned: :error, deleting: :error, stopped_permanent: :ok] do
      key = Atom.to_string(status)
      pid = start(context, key)
      ref = Process.monitor(pid)
      :ok = GenServer.call(pid, {:durable, {:stop_with_status, status, :shutdown}})
      assert_receive {:DOWN, ^ref, :process, ^pid, :shutdown}
      assert elem(Host.start_child(context.sup, child(key)), 0) == outcome
    end
  end

  test "concurrent starts of one key: one process, which every caller finds", context do
    SimulatedStore.configure(context.store, latency_ms: 1)
    results = await_tasks(for _ <- 1..20, do: Task.async(fn -> Host.start_child(context.sup, child("k")) end))
    assert [{:ok, {pid, nil}}] = Enum.filter(results, &match?({:ok, _}, &1))
    assert Enum.count(results, &(&1 == {:error, {:already_started, {pid, nil}}})) == 19
  end

  test "concurrent starts exceed neither the total limit nor that of a module", context do
    [name: sup, prefix: prefix] = Cluster.unique_options()

    start_supervised!(
      {Host, Keyword.merge(context.opts, name: sup, prefix: prefix, max_children: %{:total => 8, Scribe => 5})},
      id: sup
    )

    :ok = Host.wait_until_ready(sup)
    start = fn n -> Task.async(fn -> Host.start_child(sup, child("k#{n}"), local_only: true) end) end
    results = await_tasks(for n <- 1..20, do: start.(n))

    assert Enum.count(results, &match?({:ok, _}, &1)) == 5
    assert Enum.count(results, &(&1 == {:error, {:capacity_limit, :max_children_module}})) == 15
    assert Host.current_capacity(sup) == %{:total => %{current: 5, limit: 8}, Scribe => %{current: 5, limit: 5}}
  end

  test "the supervisor does not run: a start returns that it is not ready" do
    [name: absent, prefix: _] = Cluster.unique_options()
    assert catch_throw(DurableServer.Starter.start_here(absent, child("k"), [])) == {:error, :not_ready}
    assert {:error, :timeout} = Host.wait_until_ready(absent, timeout: 0)
  end

  test "a missing option, or one of the wrong type, is refused", context do
    assert_raise KeyError, fn -> Host.start_link(Keyword.delete(context.opts, :name)) end

    for opts <- [
          Keyword.delete(context.opts, :prefix),
          Keyword.delete(context.opts, :backend),
          Keyword.put(context.opts, :backend, SimulatedStore)
        ] do
      assert {:error, {{%ArgumentError{}, _stacktrace}, _spec}} =
               start_supervised({Host, Keyword.merge(opts, Keyword.take(Cluster.unique_options(), [:name]))},
                 id: make_ref()
               )
    end
  end

  test "children start in the order of the contract", context do
    ids = context.sup |> Supervisor.which_children() |> Enum.reverse() |> Enum.map(&elem(&1, 0))
    named = for part <- ~w(servers flights flights_waiting task_sup dynamic), do: :"#{context.sup}_#{part}"
    own = [DurableServer.HeartbeatWatchdog, DurableServer.LifecycleManager, DurableServer.Terminator]
    assert ids == [Group.Replica] ++ named ++ own
  end

  defp child(key), do: {Scribe, key: key, initial_state: %{n: 0}}

  defp start(context, key) do
    {:ok, {pid, _meta}} = Host.start_child(context.sup, child(key))
    pid
  end

  defp state(pid), do: GenServer.call(pid, {:do, &{:reply, &1, &1}})
  defp set(pid, n), do: :ok = GenServer.call(pid, {:do, fn state -> {:reply, :ok, %{state | n: n}} end})
  defp stored(context, key), do: SimulatedStore.peek(context.store, context.prefix <> key).body
  defp wait_stored(context, key, n), do: Cluster.wait_until(fn -> stored(context, key).state == %{"n" => n} end)
end
