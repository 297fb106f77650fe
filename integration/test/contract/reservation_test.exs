defmodule Contract.ReservationTest do
  @moduledoc "A reservation keeps all nodes but its owner from starting a server, until it is cleared."

  use ClusterCase, nodes: 2

  @key "k"

  setup %{a: a, b: b} = context do
    # No reservation expires in a test, however long that takes.
    start(context, [restart_start_timeout_ms: 3_600_000] ++ backend(context, discovery_interval_ms: 20))
    start_server(context, a, Counter, @key)
    await_on(context, b, @key, a)
    # A displaced server: a move to an absent target has stopped it.
    {:error, {:erpc, :noconnection}} = rehome(context, a, Counter, @key, target_node: :"nobody@127.0.0.1")
    await_none(context, b, @key)
    {:ok, backend: call(a, Host, :__get_config__, [context.sup]).storage_backend}
  end

  test "other nodes' sweeps do not start the server until the reservation is cleared",
       %{a: a, b: b, store: store} = context do
    sweeps = SimulatedStore.stats(store).list
    wait_until(fn -> SimulatedStore.stats(store).list > sweeps + 10 end)
    assert stored(context, @key).meta.status == :stopped_graceful

    assert :ok = clear(context, stored(context, @key))
    wait_until(fn -> whereis(context, a, @key) end)
    wait_until(fn -> whereis(context, b, @key) end)
  end

  test "a client's ensure_started_child elsewhere times out; after clearing it starts at once", %{b: b} = context do
    start_it = fn timeout -> ensure_started(context, b, @key, Counter, %{}, timeout: timeout) end
    assert {:error, _reserved} = start_it.(200)
    assert :ok = clear(context, stored(context, @key))
    assert {:ok, {pid, _}} = start_it.(60_000)
    assert is_pid(pid)
  end

  test "its owner moves the server to the next target", %{a: a, b: b} = context do
    assert {:ok, {pid, _}} = rehome(context, a, Counter, @key, target_node: b)
    assert node(pid) == b
  end

  test "clearing is conditional: an object that has changed since stays as it is", context do
    before = stored(context, @key)
    assert :ok = clear(context, before)
    assert {:error, :conflict} = clear(context, before)
  end

  test "fetch_stored_state reads it with its etag", %{a: a, backend: backend} = context do
    where = %{key: @key, prefix: context.opts[:prefix]}
    assert {:ok, fetched} = call(a, DurableServer, :fetch_stored_state, [backend, where, [consistent: true]])
    assert %{__struct__: DurableServer.StoredState, vsn: 1, state: %{"count" => 0}} = fetched
    assert fetched.etag == stored(context, @key).etag
    assert fetched.meta.restart_attempt_node == Atom.to_string(a)

    assert {:error, :not_found} =
             call(a, DurableServer, :fetch_stored_state, [backend, %{where | key: "nothing"}, [consistent: true]])
  end

  defp clear(%{a: a, backend: backend} = context, stored) do
    where = %{key: @key, prefix: context.opts[:prefix], body: stored, etag: stored.etag}
    call(a, DurableServer, :clear_restart_attempt, [backend, where])
  end
end
