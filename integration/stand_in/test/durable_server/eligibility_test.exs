defmodule DurableServer.EligibilityTest do
  @moduledoc """
  Rules that the recorded answers of the real package do not cover. The contract suite compares those with a
  running supervisor.
  """

  use ExUnit.Case, async: true

  alias DurableServer.Eligibility

  doctest DurableServer.Sticky

  @now 1_800_000_000_000

  test "a node whose name is not an existing atom is not eligible" do
    name = Cluster.unique("never_heard_of") <> "@host"
    assert Eligibility.eligible([%{node("n", age: 0) | node: name}], query([])) == []
  end

  test "the newer of two heartbeats of a node counts, unless it is too far in the future" do
    full = %{total: %{current: 1, limit: 1}}
    assert [] = Eligibility.eligible([node("n", age: 20), node("n", age: 10, capacity: full)], query([]))
    assert ["n"] = Eligibility.eligible([node("n", age: 20), node("n", age: -5_001, capacity: full)], query([]))
    assert [] = Eligibility.eligible([node("n", age: 20), node("n", age: -5_000, capacity: full)], query([]))
  end

  test "a heartbeat is valid for 50 s" do
    assert ["n"] = Eligibility.eligible([node("n", age: 50_000)], query([]))
    assert [] = Eligibility.eligible([node("n", age: 50_001)], query([]))
  end

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
