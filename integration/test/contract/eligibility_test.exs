defmodule Contract.EligibilityTest do
  @moduledoc """
  Recorded answers of the real `find_eligible_nodes`, asked again of a running supervisor: stored heartbeats in, nodes out. Every
  tenth of them, because each has to be read from the store; whoever implements the rules tests all.
  """

  use ClusterCase, nodes: 1

  @vectors Path.expand("../../../test/vectors/eligible.json", __DIR__)
  @external_resource @vectors
  # The nearest of the recorded stamps that are too far ahead becomes believable after 1.5 s.
  @good_for_ms 1_000

  test "the nodes of recorded views, in order", %{nodes: [a]} = context do
    start(context, backend(context, heartbeat_reconcile_interval_ms: 5))
    cases = @vectors |> File.read!() |> JsonReader.read!() |> Enum.take_every(10)

    for recorded <- cases,
        do: assert({recorded["id"], ask(context, a, recorded)} == {recorded["id"], recorded["eligible"]})
  end

  defp ask(context, a, recorded) do
    others = Enum.reject(recorded["nodes"], &(&1["name"] == recorded["local_node"]))
    # One clock reading for all: a millisecond between two nodes decides their order.
    now = System.system_time(:millisecond)
    for node <- others, do: put_heartbeat(context, node["name"], node["age_ms"], facts(node, now))
    await_known(context, a, others)

    opts = [limit: 1_000, sticky_placement: levels(recorded["sticky"])]
    answer = call(a, LifecycleManager, :find_eligible_nodes, [context.sup, String.to_atom(recorded["module"]), opts])
    asked_in_time? = System.system_time(:millisecond) - now < @good_for_ms

    for node <- others,
        do: :ok = SimulatedStore.delete_object(place(context), storage_key(context, "__nodes/" <> node["name"]))

    await_forgotten(context, a)
    if asked_in_time?, do: Enum.map(answer, &Atom.to_string/1), else: ask(context, a, recorded)
  end

  # A stamp too far ahead counts as absent, so such a node may not show.
  defp await_known(context, node, others) do
    believable = for %{"name" => name, "age_ms" => age} <- others, age > -5_000, do: name
    known = fn -> context |> cluster_nodes(node) |> Enum.reject(&(&1 == Atom.to_string(node))) end
    names = for %{"name" => name} <- others, do: name
    wait_until(fn -> believable -- known.() == [] and known.() -- names == [] end)
  end

  # In the cache are also those that do not show. The names of the next case are the same, its heartbeats may be older.
  defp await_forgotten(context, node) do
    table = :"durable_server_heartbeats_#{context.sup}"
    names = fn -> for row <- call(node, :ets, :tab2list, [table]), tuple_size(row) == 7, do: elem(row, 0) end
    wait_until(fn -> names.() == [Atom.to_string(node)] end)
  end

  defp cluster_nodes(context, node), do: Map.keys(call(node, Host, :get_cluster_nodes, [context.sup]))

  defp facts(node, now) do
    known = for {key, value} when value != nil <- Map.drop(node, ["name", "age_ms"]), into: %{}, do: {key, value}
    Map.put(known, "last_heartbeat_at", now - node["age_ms"])
  end

  defp levels(nil), do: nil

  defp levels(levels) do
    for level <- levels do
      case level do
        "any" -> %{env_var: :any, value: :any}
        [variable, value] -> %{env_var: variable, value: value}
      end
    end
  end
end
