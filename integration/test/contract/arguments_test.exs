defmodule Contract.ArgumentsTest do
  @moduledoc "What DurableServer passes to a storage backend, and the struct that it keeps for it."

  use ClusterCase, nodes: 2

  @key "k"

  setup %{nodes: nodes, opts: opts} = context do
    {SimulatedStore, backend} = opts[:backend]
    tell = [tell: self(), discovery_interval_ms: 20, heartbeat_reconcile_interval_ms: 20]
    opts = Keyword.merge(opts, backend: {SpyStore, backend ++ tell}, heartbeat_interval_ms: 20)
    start_hosts(nodes, opts)
    {:ok, opts: opts, place: place(context)}
  end

  test "the callbacks during a server's life: start, sync, move, stop, deletion, sweep, heartbeat",
       %{a: a, b: b, sup: sup} = context do
    pid = start_server(context, a, Counter, @key)
    await_on(context, b, @key, a)
    1 = ask(pid, :add_sync)
    {:ok, {_pid, _meta}} = until_moved(context, a, b)
    await_on(context, a, @key, b)
    moved = whereis(context, a, @key)
    {:ok, _info} = call(a, Host, :get_server_info, [sup, @key])
    :ok = call(b, Host, :terminate_child, [sup, @key])
    # A sweep may start it again before this node knows that it has stopped.
    wait_until(fn -> whereis(context, a, @key) != moved end)
    counter = {Counter, key: @key, initial_state: %{}}
    {:ok, {started, _meta}} = call(a, Host, :ensure_started_child, [sup, counter, []])
    {:ok, _} = call(a, Host, :ensure_started_child, [sup, {Counter, key: "new", initial_state: %{}}, [existing: false]])

    {:error, :not_found} =
      call(a, Host, :ensure_started_child, [sup, {Counter, key: "no", initial_state: %{}}, [existing: true]])

    :ok = call(a, Host, :terminate_and_delete_child, [sup, "new"])
    :ok = call(node(started), Host, :terminate_child, [sup, @key])
    # A sweep may start the server at this moment. Then it is stopped and deleted the next time.
    wait_until(fn -> call(a, Host, :terminate_and_delete_child, [sup, @key]) != {:error, :conflict} end)

    for {callback, arguments} <- seen(context), do: record(context, "arguments of #{callback}", arguments)
  end

  test "the struct that holds the backend in the configuration", %{a: a} = context do
    config = call(a, Host, :__get_config__, [context.sup])
    names = %{context.place => "location", self() => "test"}
    record(context, "config: storage_backend", config.storage_backend, names)
    record(context, "config: heartbeat_backend", config.heartbeat_backend, names)
  end

  # The target may receive the stop only after the request to start.
  defp until_moved(context, source, target) do
    wait_until(fn ->
      case rehome(context, source, Counter, @key, target_node: target) do
        {:ok, {pid, _meta}} = moved when node(pid) == target -> moved
        {:error, {:already_started, {pid, _meta}}} when node(pid) == target -> {:ok, {pid, nil}}
        _not_yet -> nil
      end
    end)
  end

  # Returns each kind of call once, when no new kind has come for several sweeps and heartbeats.
  defp seen(context, seen \\ MapSet.new()) do
    receive do
      {SpyStore, callback, key, opts} ->
        seen(context, MapSet.put(seen, {callback, {what(context, key), arguments(opts)}}))
    after
      if(complete?(seen), do: 0, else: :infinity) ->
        seen |> Enum.sort() |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
    end
  end

  # Etags, functions and remaining times differ in every call.
  defp arguments(opts) do
    for {name, value} <- Enum.sort(opts) do
      {name,
       case value do
         etag when is_binary(etag) -> :etag
         fun when is_function(fun) -> :function
         left when name == :timeout and is_integer(left) -> :integer
         other -> other
       end}
    end
  end

  # Both sweeps have listed.
  defp complete?(seen) do
    listed = for {:list_all_objects_stream, {what, _opts}} <- seen, do: what
    :server in listed and :heartbeat in listed
  end

  defp what(_context, nil), do: :none

  defp what(context, key),
    do: if(String.starts_with?(key, storage_key(context, "__nodes/")), do: :heartbeat, else: :server)
end
