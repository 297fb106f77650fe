defmodule Store.DirectoryProcessesTest do
  @moduledoc "One directory and several VMs: concurrent writes, and what a killed VM leaves behind."

  use ExUnit.Case, async: true

  alias DurableHandoff.Store, as: Backend

  setup_all do
    {:ok, nodes: Cluster.start_nodes(3)}
  end

  setup do
    opts = Store.Places.directory()
    {:ok, %{state: state}} = Backend.init_backend(opts)
    {:ok, opts: opts, state: state}
  end

  test "concurrent increments from several VMs are all kept", %{nodes: nodes, opts: opts, state: state} do
    {:ok, _} = Backend.put_object(state, "k", %{"n" => 0})

    nodes
    |> Enum.flat_map(&[&1, &1])
    |> Enum.map(fn node ->
      Task.async(fn -> Cluster.call(node, Store.DirectoryWriter, :increment, [opts, "k", 15]) end)
    end)
    |> Task.await_many(60_000)

    assert {:ok, %{body: %{"n" => 90}}} = Backend.get_object(state, "k", consistent: true)
  end

  test "a VM killed during a write leaves no lock and no partial object", %{opts: opts, state: state} do
    node = Cluster.start_node()
    writer = :erpc.send_request(node, Store.DirectoryWriter, :write_for_ever, [opts, "k"])
    Cluster.wait_until(fn -> match?({:ok, %{body: %{"n" => n}}} when n > 5, Backend.get_object(state, "k")) end)
    Cluster.kill(node)
    assert {:ok, %{body: %{"n" => _, "text" => text}, etag: etag}} = Backend.get_object(state, "k", consistent: true)
    assert byte_size(text) == 100_000
    assert {:ok, _} = Backend.put_object(state, "k", %{"n" => 0}, etag: etag)
    assert ["k"] = for(%{key: key} <- Backend.list_all_objects_stream(state, ""), do: key)
    catch_error(:erpc.receive_response(writer, 0))
  end
end
