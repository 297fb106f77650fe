defmodule Store.CostsTest do
  @moduledoc "How many requests each operation costs the store, where that does not depend on DurableServer's intervals."

  use HandoffCase, nodes: 2

  alias DurableHandoff.Store
  alias Elixir.Store.{Proxy, Servers}

  # Cached objects must not expire on a busy machine, and a slow target must not be given up.
  @patient [placement_erpc_timeout_cross_region_ms: 60_000]
  @servers 10

  setup context do
    proxy = start_supervised!({Proxy, {:s3, []}})
    config = Servers.config(:s3, Proxy.endpoint(proxy))
    store = [url: "s3://handoff/#{Cluster.unique("t")}", config: config, read_your_writes_ms: 60_000]
    context = %{context | opts: Keyword.merge(context.opts, [backend: {Store, store}] ++ @patient)}
    {:ok, proxy: proxy, store: store, context: context}
  end

  test "a start is two writes, a sync one, a move three", %{context: context, proxy: proxy} do
    [a, _b] = context.nodes
    start_cluster(context)
    # Not counting the writes of the proof at the start.
    writes(proxy)
    keys = start_servers(context, a, @servers)
    assert writes(proxy) == %{"claim" => @servers, "update" => @servers}
    for key <- keys, do: 1 = ask(whereis(context, a, key), :add_sync)
    assert writes(proxy) == %{"update" => @servers}
    # A repeated attempt, because the target has not received the stop yet, writes nothing.
    assert {:ok, %{moved: @servers}} = drain(context, a)
    assert writes(proxy) == %{"update" => 3 * @servers}
  end

  test "a heartbeat is one write, one listing of the nodes and one read for each", %{context: context, proxy: proxy} do
    {Store, store} = context.opts[:backend]

    start_cluster(%{context | opts: Keyword.put(context.opts, :backend, {Store, [heartbeat_interval_ms: 250] ++ store})})

    Proxy.requests(proxy)
    before = Proxy.counts(proxy).kinds["put"]
    wait_until(fn -> Proxy.counts(proxy).kinds["put"] >= before + 30 end)
    beats = for %{kind: kind, path: path} <- Proxy.requests(proxy), path =~ "__nodes", do: kind
    %{"put" => puts, "list" => lists, "get" => gets} = Enum.frequencies(beats)
    # Heartbeats that were in flight at the start or at the end may have been counted in part.
    assert_in_delta lists, puts, 4
    assert_in_delta gets, 2 * puts, 8
  end

  test "a read, a write and a page of a listing are one request each",
       %{store: options, proxy: proxy} do
    {:ok, %{state: store}} = Store.init_backend(options)
    cost = fn -> for(%{kind: kind} <- Proxy.requests(proxy), do: kind) end
    {:ok, {:claimed, etag}} = Store.try_claim(store, "k1", %{})
    assert cost.() == ["claim"]
    {:ok, %{etag: etag}} = Store.put_object(store, "k1", %{"n" => 1}, etag: etag)
    assert cost.() == ["update"]
    {:ok, _object} = Store.put_object(store, "k2", %{})
    assert cost.() == ["put"]
    {:ok, %{etag: ^etag}} = Store.get_object(store, "k1", consistent: true)
    assert cost.() == ["get"]
    assert length(Enum.to_list(Store.list_all_objects_stream(store, ""))) == 2
    assert cost.() == ["list"]
  end

  # The writes to servers' objects since the last call, without heartbeats, which come at any time.
  defp writes(proxy) do
    for(
      %{kind: kind, path: path} <- Proxy.requests(proxy),
      kind in ["put", "claim", "update", "delete"],
      not String.contains?(path, "__nodes"),
      do: kind
    )
    |> Enum.frequencies()
  end
end
