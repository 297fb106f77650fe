defmodule Contract.StorageBackendTest do
  @moduledoc """
  What DurableServer expects of a storage backend, asserted on `SimulatedStore`, besides what `Store.Conformance`
  asserts of every backend.
  """

  use ExUnit.Case, async: true

  setup do
    name = String.to_atom(Cluster.unique("store"))
    start_supervised!({SimulatedStore, name: name})
    {:ok, backend} = SimulatedStore.init_backend(name: name)
    {:ok, state: backend.state, backend: backend}
  end

  test "init_backend returns defaults and features; options override the defaults", %{backend: backend} do
    assert %{heartbeat_tracking_mode: :poll, discovery_interval_ms: 60_000, heartbeat_interval_ms: 10_000} =
             backend.defaults

    assert is_integer(backend.defaults.heartbeat_reconcile_interval_ms)
    assert %{heartbeat_subscribe?: false, list_includes_body?: false, conditional_delete?: true} = backend.features
    {:ok, sooner} = SimulatedStore.init_backend(discovery_interval_ms: 5)
    assert sooner.defaults.discovery_interval_ms == 5
    assert_raise ArgumentError, fn -> SimulatedStore.init_backend(latncy_ms: 5) end
  end

  test "ensure_ready fails while the store is not reachable", %{state: state} do
    assert :ok = SimulatedStore.ensure_ready(state)
    assert {:error, _reason} = SimulatedStore.ensure_ready({:no_such_store, node()})
  end

  test "a heartbeat is read back as the same map", %{state: state} do
    heartbeat = %{
      "node" => "a@host",
      "last_heartbeat_at" => 1,
      "capacity" => %{"total" => %{"current" => 1, "limit" => 2}}
    }

    {:ok, _} = SimulatedStore.put_object(state, "x/__nodes/a@host", heartbeat, [])
    assert {:ok, %{body: ^heartbeat}} = SimulatedStore.get_object(state, "x/__nodes/a@host", consistent: true)
  end

  test "a state that JSON cannot represent is refused, and nothing is stored", %{state: state} do
    for term <- [{:a, :tuple}, self(), ~D[2030-01-01], %{{1, 2} => 3}] do
      assert {:error, {:not_encodable, _}} = SimulatedStore.put_object(state, "k", %{"term" => term}, [])
    end

    assert {:error, :not_found} = SimulatedStore.get_object(state, "k", [])
  end

  test "list_all_objects_stream: by prefix, in order", %{state: state} do
    for key <- ["x/2", "x/1", "y/1"], do: {:ok, _} = SimulatedStore.put_object(state, key, %{"key" => key}, [])

    assert [%{key: "x/1", etag: _}, %{key: "x/2", etag: _}] =
             Enum.to_list(SimulatedStore.list_all_objects_stream(state, "x/", []))
  end

  test "a listing that fails calls the error handler and ends", %{state: state} do
    SimulatedStore.fail_next(state, :list, :any, :slow_down)
    test = self()

    handler = fn reason ->
      send(test, {:failed, reason})
      :halt
    end

    assert [] = Enum.to_list(SimulatedStore.list_all_objects_stream(state, "x/", error_handler: handler))
    assert_received {:failed, :slow_down}
  end
end
