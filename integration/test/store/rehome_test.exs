defmodule Store.RehomeTest do
  @moduledoc """
  How many requests a move costs on `DurableHandoff.Store`, with and without its cache of recent writes.
  """

  use ExUnit.Case, async: true

  alias DurableHandoff.Store, as: Backend
  alias DurableServer.StoredState
  alias DurableServer.Supervisor, as: Host
  alias Elixir.Servers.Counter
  alias Store.Proxy

  # Only the move may send requests to the store while they are counted.
  @quiet [discovery_interval_ms: 3_600_000, heartbeat_interval_ms: 3_600_000]

  # A cached object must not expire on a busy machine,
  @remember [read_your_writes_ms: 60_000]
  # and a slow target must not be given up.
  @patient [
    placement_erpc_timeout_cross_region_ms: 60_000,
    heartbeat_staleness_threshold_ms: 7_200_000,
    initial_discovery_delay_ms: 3_600_000
  ]

  setup_all do
    {:ok, nodes: Cluster.start_nodes(2)}
  end

  for {what, place} <- [{"a directory", :directory}, {"an S3 server that counts", :s3}] do
    describe "on #{what} a move costs" do
      @describetag place: place

      test "one read and three writes", %{nodes: nodes, place: place} do
        assert {["GET", "PUT", "PUT", "PUT"], 0} = requests_of_a_move(nodes, place, read_your_writes: false)
      end

      test "three writes when the last write is cached", %{nodes: nodes, place: place} do
        assert {["PUT", "PUT", "PUT"], 1} = requests_of_a_move(nodes, place, @remember)
      end
    end
  end

  test "only the write that reserves a server for this node is cached, for one read" do
    {:ok, %{state: state}} = Backend.init_backend([url: "memory:"] ++ @remember)
    mine = reserved_here()
    others = [%{mine | restart_attempt_node: "other@host"}, %{mine | status: :running}]
    stored = &%StoredState{state: %{}, meta: &1, vsn: 1}

    for meta <- others do
      {:ok, _} = Backend.put_object(state, "k", stored.(meta))
      {:ok, %{body: %{meta: ^meta}}} = Backend.get_object(state, "k", consistent: true)
    end

    assert %{cached: 0} = Backend.stats(state)
    {:ok, %{etag: etag}} = Backend.put_object(state, "k", stored.(mine))

    for _ <- 1..2,
        do: assert({:ok, %{body: %{meta: ^mine}, etag: ^etag}} = Backend.get_object(state, "k", consistent: true))

    assert %{cached: 1} = Backend.stats(state)
  end

  test "the cached copy is not used after another writer's write or deletion" do
    name = Cluster.unique("shared")
    [ours, theirs] = for _ <- 1..2, do: elem(Backend.init_backend([url: "memory:" <> name] ++ @remember), 1).state

    mine = %StoredState{state: %{}, meta: reserved_here(), vsn: 1}
    {:ok, _} = Backend.put_object(ours, "k", mine)
    {:ok, _} = Backend.put_object(theirs, "k", %{mine | vsn: 2})
    {:ok, %{body: %{vsn: 1}, etag: stale}} = Backend.get_object(ours, "k", consistent: true)
    assert {:error, :conflict} = Backend.put_object(ours, "k", %{mine | vsn: 3}, etag: stale)
    assert {:ok, %{body: %{vsn: 2}}} = Backend.get_object(ours, "k", consistent: true)
  end

  defp reserved_here,
    do: struct!(DurableServer.Meta, status: :stopped_graceful, restart_attempt_node: Atom.to_string(node()))

  # The requests that the server saw, and how many reads were answered from memory.
  defp requests_of_a_move(nodes, place, opts) do
    [name: sup, prefix: prefix] = Cluster.unique_options()
    {proxy, place} = place(place)

    Cluster.start_hosts(nodes, [name: sup, prefix: prefix, backend: {Backend, place ++ @quiet ++ opts}] ++ @patient)

    # A target that has not received the stop answers with the old pid. Then the next server is measured.
    Cluster.wait_until(fn -> measure(nodes, sup, proxy, Cluster.unique("k")) end)
  end

  defp measure([source, target] = nodes, sup, proxy, key) do
    child = {Counter, key: key, initial_state: %{count: 7}}
    {:ok, {old, _meta}} = Cluster.call(source, Host, :start_child, [sup, child, [local_only: true, timeout: 60_000]])

    before = stats(nodes, sup)
    if proxy, do: Proxy.requests(proxy)
    move = [sup, {Counter, key: key, initial_state: %{}}, [target_node: target]]

    case Cluster.call(source, Host, :rehome_child, move) do
      {:error, {:already_started, {^old, _meta}}} ->
        nil

      moved ->
        later = stats(nodes, sup)
        assert {:ok, {pid, _meta}} = moved
        assert node(pid) == target
        assert Cluster.ask(pid, :get) == 7
        {seen(proxy, later.requests - before.requests), later.cached - before.cached}
    end
  end

  # A directory cannot count requests, so the store's own count is used; three of them are always writes.
  defp seen(nil, requests), do: List.duplicate("GET", requests - 3) ++ List.duplicate("PUT", 3)

  defp seen(proxy, requests) do
    methods = for %{method: method} <- Proxy.requests(proxy), do: method
    assert length(methods) == requests
    Enum.sort(methods)
  end

  defp place(:directory), do: {nil, Store.Places.directory()}

  defp place(:s3) do
    # Kept in memory, because a start on a busy server may take longer than DurableServer waits.
    proxy = start_supervised!({Proxy, {:s3, []}})
    {proxy, [url: "s3://handoff/" <> Cluster.unique("t"), config: Store.Servers.config(:s3, Proxy.endpoint(proxy))]}
  end

  defp stats(nodes, sup) do
    nodes
    |> Enum.map(fn node ->
      %{storage_backend: %{adapter: Backend, state: state}} = Cluster.call(node, Host, :__get_config__, [sup])
      Cluster.call(node, Backend, :stats, [state])
    end)
    |> Enum.reduce(fn stats, sum -> Map.merge(sum, stats, fn _name, a, b -> a + b end) end)
  end
end
