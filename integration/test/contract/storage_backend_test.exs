defmodule Contract.StorageBackendTest do
  @moduledoc """
  What DurableServer expects of a storage backend, asserted on `SimulatedStore`.
  """

  use ExUnit.Case, async: true

  import ClusterCase, only: [await_tasks: 1]

  alias DurableServer.StoredState

  @reserved [
    status: :stopped_graceful,
    restart_attempt_node: "a@host",
    pid: nil,
    permanent: true,
    module: Servers.Counter
  ]

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

  test "a StoredState is read back: string keys in its state, its meta unchanged", %{state: state} do
    meta = struct!(DurableServer.Meta, Keyword.put(@reserved, :pid, self()))
    stored = %StoredState{state: %{count: 1, nested: %{tag: :word, list: [nil, true, 1.5]}}, meta: meta, vsn: 3}
    assert {:ok, %{body: ^stored, etag: etag}} = SimulatedStore.put_object(state, "k", stored, [])
    assert {:ok, %{body: read, etag: ^etag}} = SimulatedStore.get_object(state, "k", consistent: true)
    assert %StoredState{vsn: 3, meta: ^meta} = read
    assert read.state == %{"count" => 1, "nested" => %{"tag" => "word", "list" => [nil, true, 1.5]}}
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

  test "encode and decode convert a state as a write and a read do", %{state: state} do
    meta = struct!(DurableServer.Meta, @reserved)
    {:ok, encoded} = SimulatedStore.encode(state, %StoredState{state: %{count: 1}, meta: meta, vsn: 1})
    assert {:ok, %StoredState{state: %{"count" => 1}, meta: ^meta, vsn: 1}} = SimulatedStore.decode(state, encoded)
  end

  test "a state that JSON cannot represent is refused, and nothing is stored", %{state: state} do
    for term <- [{:a, :tuple}, self(), ~D[2030-01-01], %{{1, 2} => 3}] do
      assert {:error, {:not_encodable, _}} = SimulatedStore.put_object(state, "k", %{"term" => term}, [])
    end

    assert {:error, :not_found} = SimulatedStore.get_object(state, "k", [])
  end

  test "put_object with an etag: a stale etag, or one for a missing object, is a conflict", %{state: state} do
    {:ok, %{etag: first}} = SimulatedStore.put_object(state, "k", %{"n" => 1}, [])
    assert {:ok, %{etag: second}} = SimulatedStore.put_object(state, "k", %{"n" => 2}, etag: first)
    assert {:error, :conflict} = SimulatedStore.put_object(state, "k", %{"n" => 3}, etag: first)
    assert {:error, :conflict} = SimulatedStore.put_object(state, "absent", %{"n" => 3}, etag: first)
    assert {:ok, %{body: %{"n" => 2}, etag: ^second}} = SimulatedStore.get_object(state, "k", [])
  end

  test "try_claim: one of 20 concurrent claims succeeds", %{state: state} do
    claims = for n <- 1..20, do: Task.async(fn -> SimulatedStore.try_claim(state, "k", %{"n" => n}) end)
    results = await_tasks(claims)
    assert [{:ok, {:claimed, etag}}] = Enum.filter(results, &match?({:ok, _}, &1))
    assert Enum.count(results, &(&1 == {:error, :already_claimed})) == 19
    assert {:ok, %{etag: ^etag}} = SimulatedStore.get_object(state, "k", [])
  end

  test "put_object with an etag: 20 concurrent increments are all kept", %{state: state} do
    {:ok, _} = SimulatedStore.put_object(state, "k", %{"n" => 0}, [])
    await_tasks(for _ <- 1..20, do: Task.async(fn -> increment(state) end))
    assert {:ok, %{body: %{"n" => 20}}} = SimulatedStore.get_object(state, "k", [])
  end

  test "update_object: the function's error is returned, and nothing is written", %{state: state} do
    {:ok, %{etag: etag}} = SimulatedStore.put_object(state, "k", %{"n" => 1}, [])
    assert {:error, :no} = SimulatedStore.update_object(state, "k", fn _object -> {:error, :no} end, [])
    assert {:ok, %{etag: ^etag}} = SimulatedStore.get_object(state, "k", [])
    assert {:error, :not_found} = SimulatedStore.update_object(state, "absent", fn object -> {:ok, object.body} end, [])
  end

  test "delete_object: with an etag, without one, and of a missing object", %{state: state} do
    {:ok, %{etag: old}} = SimulatedStore.put_object(state, "k", %{"n" => 1}, [])
    {:ok, %{etag: etag}} = SimulatedStore.put_object(state, "k", %{"n" => 2}, [])
    assert {:error, :conflict} = SimulatedStore.delete_object(state, "k", etag: old)
    assert :ok = SimulatedStore.delete_object(state, "k", etag: etag)
    assert {:error, :not_found} = SimulatedStore.delete_object(state, "k", [])
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

  defp increment(state) do
    case SimulatedStore.update_object(state, "k", fn %{body: %{"n" => n}} -> {:ok, %{"n" => n + 1}} end, []) do
      {:ok, _object} -> :ok
      {:error, :conflict} -> increment(state)
    end
  end
end
