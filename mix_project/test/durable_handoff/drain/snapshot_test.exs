defmodule DurableHandoff.Drain.SnapshotTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Drain.Snapshot
  alias DurableHandoff.{Native, Options}

  @empty %{
    supervisor: :no_host,
    servers: {},
    entries: [],
    excluded: [],
    modules: [],
    stickies: [],
    counts: %{},
    asked: MapSet.new()
  }

  test "an answer that arrives after its node has gone does not count when the node comes back" do
    snapshot = struct!(Snapshot, @empty)
    answer = %{at_ms: 1, servers: 2, capacity: nil, stopping: false, missing: [], prefix: nil, storage: nil}
    assert Snapshot.answered(snapshot, ["gone@h"], %{"gone@h" => answer}) == snapshot
  end

  # The engine has a default for some fields, so a missing one would not be noticed.
  test "the engine gets each field of its configuration; a rebalance's only for a rebalance" do
    {fields, _ranges} = Native.config()
    missing = &(Map.keys(fields) -- Map.keys(Snapshot.engine_config(&1, Options.new!(true), 60_000)))
    snapshot = struct!(Snapshot, @empty)
    assert Enum.sort(missing.(snapshot)) == [:goal, :min_servers, :tolerance]
    assert missing.(%{snapshot | rebalance: %{tolerance: 0.1, min_servers: 5}}) == []
  end

  test "a drain waits five seconds for nodes that were lost, unless it is told how long to wait for a target" do
    waits = &Snapshot.engine_config(struct!(Snapshot, @empty), Options.new!(&1), 60_000).wait_for_lost_ms
    assert [waits.([]), waits.(wait_for_target_ms: 0), waits.(wait_for_target_ms: 7_000)] == [5_000, 0, 7_000]
  end
end
