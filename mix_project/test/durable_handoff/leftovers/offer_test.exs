defmodule DurableHandoff.Leftovers.OfferTest do
  use ExUnit.Case

  import DurableHandoff.LogEvents

  alias DurableHandoff.Drain.Snapshot
  alias DurableHandoff.{Host, Native, Options}
  alias DurableHandoff.Leftovers.{Adoption, Offer}

  @moduletag :capture_log

  test "of more servers than a receiver takes, only as many are offered" do
    count = Adoption.most_servers() + 1
    results = :binary.copy(<<Map.new(Native.reasons()).deadline>>, count)

    {0, log} =
      collect(
        fn -> Offer.run(snapshot(count), results, Options.new!(true), fn _id, _server -> true end, 60_000) end,
        &(&1[:durable_handoff] == :leftovers_offered)
      )

    assert [{:warning, :leftovers_offered, %{left: left}}] = log
    assert left == Adoption.most_servers()
  end

  # That many servers of a node without neighbours.
  defp snapshot(count) do
    server = %{key: "k", module: Some.Module, pid: self(), meta: nil, since_ms: nil}

    %Snapshot{
      supervisor: :no_host,
      servers: Tuple.duplicate(server, count),
      entries: List.duplicate({0, 0, 0}, count),
      excluded: [],
      modules: [Some.Module],
      stickies: [[]],
      counts: %{},
      asked: MapSet.new(),
      source: %{name: "source@nowhere"},
      view: Host.View.build(:no_host, [], [])
    }
  end
end
