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
    {peers, names} = start(25)
    await_tried(peers, names, 25)
  end

  test "at most 1,000 names become atoms in a drain" do
    {peers, names} = start(1_010)
    await_tried(peers, names, 1_000)
    # The second report comes after the connections of the first look have begun.
    for _ <- 1..3, do: look(peers)
    wait_until(fn -> Process.info(peers, :monitors) == {:monitors, [process: self()]} end)
    assert Enum.count(names, &tried?/1) == 1_000
  end

  # The process with that many nodes out of reach, for the test as the drain.
  defp start(count) do
    view = Host.View.build(:no_host, [], [])
    names = for n <- 1..count, do: "peers-#{System.unique_integer([:positive])}-#{n}@127.0.0.1"
    nodes = for name <- names, do: %{name: name, connected: false, draining: false, stamp_ms: view.now_ms}
    snapshot = %{supervisor: :no_host, modules: [], late: [], view: %{view | nodes: nodes}}
    {Peers.start(snapshot, true, Deadline.drain(Clock.now_us(), 30_000)), names}
  end

  defp await_tried(peers, names, count) do
    wait_until(fn ->
      look(peers)
      Enum.count(names, &tried?/1) >= count
    end)
  end

  defp look(peers) do
    Peers.look_now(peers)
    assert_receive {Peers, _asked, _answers, _silent}, 60_000
  end
end
