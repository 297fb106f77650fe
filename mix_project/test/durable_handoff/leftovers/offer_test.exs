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

  test "offered are servers that could run elsewhere but for which time, room or targets were lacking or attempts failed" do
    offered = for {reason, code} <- Native.reasons(), offered?(code), do: reason

    # With the last two it is unknown whether the server runs; here it does not.
    assert Enum.sort(offered) ==
             Enum.sort(
               ~w(deadline failures capacity no_target attempts_exhausted cancelled lost_race state_not_stored)a
             )
  end

  test "the process that offers gets no copy of the servers that it does not offer" do
    assert heap(one_offered_of: 20_000) < 2 * heap(one_offered_of: 1)
  end

  test "the process that offers crashes: an error in the log, and none counts as accepted" do
    results = :binary.copy(<<Map.new(Native.reasons()).deadline>>, 3)
    broken = %{snapshot(3) | view: :no_view}

    assert {0, [{:error, :leftovers_not_offered, %{reason: _exception}}]} =
             collect(fn -> Offer.run(broken, results, Options.new!(true), fn _id, _server -> true end, 60_000) end)
  end

  test "an offer says how many nodes get one, of whose receivers only three are in its line" do
    ready = for letter <- ~w(a b c d e), do: {"#{letter}@h", self()}
    offers = Offer.offers(snapshot(4), %{"a@h" => [0], "b@h" => [1], "d@h" => [2], "e@h" => [3]}, ready)
    assert [{1, 3, 4}] = Enum.uniq(for {_name, offer} <- offers, do: sizes(offer))
  end

  defp sizes(offer), do: {length(offer.servers), length(offer.line), offer.receivers}

  # The words of memory of the process that offers. It logs what it has offered, and the handler runs in it.
  defp heap(one_offered_of: count) do
    results = :binary.copy(<<Map.new(Native.reasons()).deadline>>, count)
    test = self()

    {0, _log} =
      collect(
        fn -> Offer.run(snapshot(count), results, Options.new!(true), fn id, _server -> id == 0 end, 60_000) end,
        &(&1[:durable_handoff] == :leftovers_offered and is_tuple(send(test, Process.info(self(), :total_heap_size))))
      )

    assert_received {:total_heap_size, words}
    words
  end

  # Whether a server with this result is offered.
  defp offered?(code) do
    {0, log} =
      collect(
        fn -> Offer.run(snapshot(1), <<code>>, Options.new!(true), fn _id, _server -> true end, 60_000) end,
        &(&1[:durable_handoff] == :leftovers_offered)
      )

    log != []
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
