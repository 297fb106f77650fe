defmodule DurableServer.EligibilityTest do
  use ExUnit.Case, async: true

  alias DurableServer.Eligibility

  doctest DurableServer.Sticky
  doctest JsonReader

  @vectors Path.expand("../../../../test/vectors/eligible.json", __DIR__)
  @external_resource @vectors

  @now 1_800_000_000_000

  test "every recorded answer of the real find_eligible_nodes, in order" do
    cases = @vectors |> File.read!() |> JsonReader.read!()
    assert cases != []

    wrong =
      for recorded <- cases,
          answer = answer(recorded),
          answer != recorded["eligible"],
          do: {recorded["id"], answer, recorded["eligible"]}

    assert wrong == []
  end

  test "a node whose name is no atom here is not eligible" do
    name = Cluster.unique("never_heard_of") <> "@host"
    assert Eligibility.eligible([%{node("n", age: 0) | node: name}], query([])) == []
  end

  test "of two heartbeats of a node the newer counts, unless it is too far ahead" do
    full = %{total: %{current: 1, limit: 1}}
    assert [] = Eligibility.eligible([node("n", age: 20), node("n", age: 10, capacity: full)], query([]))
    assert ["n"] = Eligibility.eligible([node("n", age: 20), node("n", age: -5_001, capacity: full)], query([]))
    assert [] = Eligibility.eligible([node("n", age: 20), node("n", age: -5_000, capacity: full)], query([]))
  end

  test "a heartbeat is good for 50 s" do
    assert ["n"] = Eligibility.eligible([node("n", age: 50_000)], query([]))
    assert [] = Eligibility.eligible([node("n", age: 50_001)], query([]))
  end

  defp answer(recorded) do
    heartbeats =
      for node <- recorded["nodes"] do
        %{
          node: node["name"],
          timestamp: @now - node["age_ms"],
          capacity: atoms(node["capacity"], &atoms(&1, fn value -> value end)),
          resources: atoms(node["resources"], & &1),
          env_vars: node["env_vars"],
          heartbeat_meta: node["heartbeat_meta"]
        }
      end

    query =
      query(
        local: recorded["local_node"],
        module: String.to_atom(recorded["module"]),
        levels: levels(recorded["sticky"])
      )

    for heartbeat <- heartbeats, do: String.to_atom(heartbeat.node)
    Eligibility.eligible(heartbeats, query)
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

  defp atoms(nil, _value), do: nil
  defp atoms(map, value), do: Map.new(map, fn {key, inner} -> {String.to_atom(key), value.(inner)} end)

  defp node(name, facts) do
    _known = String.to_atom(name)
    {age, facts} = Keyword.pop(facts, :age, 0)
    blank = %{node: name, timestamp: @now - age, capacity: nil, resources: nil, env_vars: nil, heartbeat_meta: nil}
    Map.merge(blank, Map.new(facts))
  end

  defp query(more) do
    blank = %{local: "here", module: ModA, now: @now, future_skew_ms: 5_000, levels: nil}
    Map.merge(blank, Map.new(more))
  end
end
