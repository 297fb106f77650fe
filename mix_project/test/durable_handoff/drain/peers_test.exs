defmodule DurableHandoff.Drain.PeersTest do
  use ExUnit.Case, async: true

  import DurableHandoff.Eventually

  alias DurableHandoff.{Clock, Deadline, Host}
  alias DurableHandoff.Drain.Peers

  # A node becomes an atom when it is tried.
  defp tried?(name) do
    is_atom(String.to_existing_atom(name))
  rescue
    ArgumentError -> false
  end

  test "ten unreachable nodes do not prevent a drain from trying the others" do
    view = Host.View.build(:no_host, [], [])
    names = for n <- 1..25, do: "peers-#{System.unique_integer([:positive])}-#{n}@127.0.0.1"
    nodes = for name <- names, do: %{name: name, connected: false, draining: false, stamp_ms: view.now_ms}
    snapshot = %{supervisor: :no_host, modules: [], late: [], view: %{view | nodes: nodes}}
    peers = Peers.start(snapshot, true, Deadline.drain(Clock.now_us(), 30_000))

    wait_until(fn ->
      Peers.look_now(peers)
      assert_receive {Peers, _asked, _answers, _silent}, 60_000
      Enum.all?(names, &tried?/1)
    end)
  end

  test "at most 1,000 names become atoms in a drain, also when several attempts begin together" do
    tried = Map.new(1..999, &{"tried-#{&1}@h", 2})
    names = for n <- 1..20, do: "new-#{n}@h"
    assert Peers.to_try(names, [], tried) == ["new-1@h"]
    assert Peers.to_try(names ++ ["tried-7@h"], ["tried-1@h"], tried) == ["new-1@h", "tried-7@h"]
    assert Peers.to_try(names, [], Map.put(tried, "new-1@h", 1)) == ["new-1@h"]
  end
end
