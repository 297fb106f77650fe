defmodule DurableHandoff.Drain.SnapshotTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Drain.Snapshot

  test "an answer that arrives after its node has gone does not count when the node comes back" do
    snapshot = %Snapshot{
      supervisor: Sup,
      servers: {},
      entries: [],
      excluded: [],
      modules: [],
      stickies: [],
      counts: %{},
      asked: MapSet.new()
    }

    answer = %{at_ms: 1, servers: 2, capacity: nil, stopping: false, missing: [], prefix: nil, storage: nil}
    assert Snapshot.answered(snapshot, ["gone@h"], %{"gone@h" => answer}) == snapshot
  end
end
