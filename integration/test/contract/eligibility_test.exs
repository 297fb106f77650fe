defmodule Contract.EligibilityTest do
  @moduledoc """
  Compares the recorded answers of the real `find_eligible_nodes` with those of a running supervisor, whose
  table gets the recorded heartbeats.
  """

  use ClusterCase, nodes: 1

  alias DurableHandoff.Codec.Decoder

  @vectors Path.expand("../../../test/vectors/eligible.json", __DIR__)
  @external_resource @vectors
  # After 1.5 s the first of the recorded stamps from the future would become valid.
  @good_for_ms 1_000

  @tag after_0_1_4: "this version accepts heartbeats from the future"
  test "find_eligible_nodes gives the recorded nodes in the recorded order", %{nodes: [a]} = context do
    start(context, quiet(context))

    for recorded <- @vectors |> File.read!() |> Decoder.decode!(),
        do: assert({recorded["id"], eligible_there(context, a, recorded)} == {recorded["id"], recorded["eligible"]})
  end

  # A heartbeat that is read from the store loses its disk figures.
  test "the fields that a node caches of a stored heartbeat", %{nodes: [a]} = context do
    start(context, heartbeat_interval_ms: 20)
    numbers = %{"cpu" => 1, "max_cpu" => 2, "memory" => 3, "max_memory" => 4, "disk" => 5, "max_disk" => 6}
    full = %{"current" => 1, "limit" => 2}

    for {row, facts} <- [
          {"all facts", %{"capacity" => %{"total" => full}, "resources" => numbers, "heartbeat_meta" => %{"a" => 1}}},
          {"no facts", %{}},
          {"a limit of an unknown module", %{"capacity" => %{"total" => full, "Elixir.NoSuchModule" => full}}}
        ] do
      name = String.replace(row, " ", "_") <> "@host"
      put_heartbeat(context, name, 0, facts)
      table = :"durable_server_heartbeats_#{context.sup}"
      kept = wait_until(fn -> with [kept] <- call(a, :ets, :lookup, [table, name]), do: kept, else: (_ -> nil) end)
      record(context, "heartbeat read from the store: " <> row, kept)
    end
  end

  defp eligible_there(context, a, recorded) do
    others = Enum.reject(recorded["nodes"], &(&1["name"] == recorded["local_node"]))
    table = :"durable_server_heartbeats_#{context.sup}"
    # DurableServer ignores a node whose name does not exist as an atom.
    for node <- others, do: call(a, String, :to_atom, [node["name"]])
    # The clock is read once for all, because one millisecond between two nodes decides their order.
    now = System.system_time(:millisecond)
    true = call(a, :ets, :insert, [table, Enum.map(others, &row(&1, now))])

    opts = [limit: 1_000, sticky_placement: levels(recorded["sticky"])]
    answer = call(a, LifecycleManager, :find_eligible_nodes, [context.sup, String.to_atom(recorded["module"]), opts])
    asked_in_time? = System.system_time(:millisecond) - now < @good_for_ms

    for node <- others, do: call(a, :ets, :delete, [table, node["name"]])
    if asked_in_time?, do: Enum.map(answer, &Atom.to_string/1), else: eligible_there(context, a, recorded)
  end

  defp row(node, now) do
    {node["name"], 1, now - node["age_ms"], limits(node["capacity"]), atoms(node["resources"]), node["env_vars"] || %{},
     node["heartbeat_meta"]}
  end

  defp limits(nil), do: nil
  defp limits(capacity), do: for({name, limit} <- atoms(capacity), into: %{}, do: {name, atoms(limit)})

  defp atoms(nil), do: nil
  defp atoms(map), do: for({key, value} <- map, into: %{}, do: {String.to_atom(key), value})

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
