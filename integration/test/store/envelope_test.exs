defmodule Store.EnvelopeTest do
  @moduledoc """
  Objects recorded from DurableServer's own object storage backend (`test/vectors/envelope.json`): ours reads them as they were
  meant, and writes what that backend reads.
  """

  use ExUnit.Case, async: true

  alias DurableHandoff.{Codec, Store}
  alias DurableHandoff.Store.Request
  alias DurableServer.StoredState

  @vectors Path.expand("../../../test/vectors/envelope.json", __DIR__)
  @external_resource @vectors

  setup_all do
    {:ok, vectors: Codec.decode!(File.read!(@vectors))}
  end

  setup do
    {:ok, %{state: state}} = Store.init_backend(url: "memory:")
    {:ok, state: state}
  end

  test "objects of the built-in backend are read", %{vectors: vectors, state: state} do
    assert length(vectors["objects"]) == 30

    for vector <- vectors["objects"] do
      bytes = Base.decode64!(vector["object_base64"])
      {:ok, _etag} = Request.run(state, {:put, "k", bytes, :always, :always, false}, [])
      assert {:ok, %{body: %StoredState{} = stored}} = Store.get_object(state, "k", consistent: true)
      assert stored.state == vector["state_etf_base64"] |> Base.decode64!() |> :erlang.binary_to_term()
      expect = vector["expect"]
      assert stored.vsn == expect["vsn"]
      assert Atom.to_string(stored.meta.status) == expect["status"]
      assert inspect(stored.meta.module) == expect["module"]
      assert stored.meta.node_str == expect["node"]
      assert stored.meta.permanent == expect["permanent"]
      assert stored.meta.restart_attempt_node == expect["restart_attempt_node"]
      assert stored.meta.restart_attempt_ttl == expect["restart_attempt_ttl"]
      assert length(stored.meta.sticky_placement || []) == expect["sticky_levels"]
      assert length(stored.meta.crash_history) == length(expect["crash_history"])
    end
  end

  test "objects are written as the built-in backend writes them", %{vectors: vectors, state: state} do
    for vector <- vectors["objects"] do
      bytes = Base.decode64!(vector["object_base64"])
      {:ok, stored} = Store.decode(state, bytes)
      {:ok, %{etag: etag}} = Store.put_object(state, "k", stored)
      {:ok, ours, ^etag} = Request.run(state, {:get, "k", true}, [])
      assert opened(ours) == opened(bytes)
    end
  end

  test "a heartbeat of the built-in backend is read and written", %{vectors: vectors, state: state} do
    %{"key" => key, "object_base64" => base64} = vectors["heartbeat"]
    bytes = Base.decode64!(base64)
    {:ok, _etag} = Request.run(state, {:put, key, bytes, :always, :always, false}, [])
    {:ok, %{body: heartbeat}} = Store.get_object(state, key, consistent: true)
    assert %{"node" => "app@host", "heartbeat_meta" => %{"draining" => true}} = heartbeat
    {:ok, _} = Store.put_object(state, key, heartbeat)
    {:ok, ours, _etag} = Request.run(state, {:get, key, true}, [])
    assert Codec.decode!(ours) == Codec.decode!(bytes)
  end

  # The three keys, with `meta` decoded: one term has more than one external form.
  defp opened(bytes) do
    %{"vsn" => _, "state" => _} = object = Codec.decode!(bytes)
    Map.update!(object, "meta", &(&1 |> Base.decode64!() |> :erlang.binary_to_term()))
  end
end
