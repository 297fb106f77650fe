defmodule Contract.StoredStateTest do
  @moduledoc "`DurableServer.StoredState` to and from the map of three keys that stores keep, and what meta holds."

  use ClusterCase, nodes: 2

  alias DurableServer.StoredState

  setup %{nodes: [a, _b]} = context do
    start(context)
    start_server(context, a, Counter, "k", %{meta: %{region: "x"}})
    stored = stored(context, "k")
    {:ok, stored: %{stored | etag: nil}, term: StoredState.to_object_store_term(stored)}
  end

  test "to_object_store_term: a map of three keys, meta as text", %{term: term} = context do
    record(context, "StoredState.to_object_store_term", Map.new(term, fn {key, value} -> {key, kind(value)} end))
  end

  test "from_object_store_term: every answer it has", %{stored: stored, term: term} = context do
    assert {:ok, ^stored} = StoredState.from_object_store_term(term)
    meta = Base.decode64!(term["meta"])

    for {row, object} <- [
          {"as written", term},
          {"a heartbeat", %{"node" => "a@host", "node_ref" => 1, "last_heartbeat_at" => 2}},
          {"one key more", Map.put(term, "more", 1)},
          {"one key less", Map.delete(term, "vsn")},
          {"meta is not text", %{term | "meta" => %{}}},
          {"meta is not Base64", %{term | "meta" => "*"}},
          {"meta is not a term", %{term | "meta" => Base.encode64("no term")}},
          {"meta is cut off", %{term | "meta" => Base.encode64(binary_part(meta, 0, 40))}},
          {"meta is not a map", %{term | "meta" => Base.encode64(:erlang.term_to_binary(:no_map))}},
          {"a list", []},
          {"nil", nil}
        ] do
      record(context, "StoredState.from_object_store_term: " <> row, tried(object))
    end
  end

  test "the meta of a server that runs", %{stored: stored} = context do
    record(context, "stored meta: running", stored.meta)
  end

  test "the meta of a server that was stopped to be moved", %{nodes: [a, _b]} = context do
    {pid, _meta} = call(a, Host, :lookup, [context.sup, "k"])
    :ok = ask(pid, {:durable, {:stop_for_rehome, "other@host", 40_000, :normal}})
    await_down(pid)
    record(context, "stored meta: stopped to be moved", stored(context, "k").meta)
  end

  defp kind(value) when is_binary(value), do: :text
  defp kind(value) when is_map(value), do: :map
  defp kind(value), do: value

  defp tried(object) do
    case Relay.try({StoredState, :from_object_store_term, [object]}) do
      {:ok, {:ok, %struct{}}} -> {:ok, struct}
      {:ok, other} -> other
      raised -> {:raised, raised}
    end
  end
end
