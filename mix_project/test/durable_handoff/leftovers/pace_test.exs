defmodule DurableHandoff.Leftovers.PaceTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Leftovers.Pace

  # Takes all permits that are available now.
  defp take_all(pace, permits \\ []) do
    case Pace.take(pace) do
      {nil, pace} -> {permits, pace}
      {permit, pace} -> take_all(pace, [permit | permits])
    end
  end

  defp give_all(pace, permits, verdict), do: Enum.reduce(permits, pace, &Pace.give(&2, &1, 1_000, verdict))

  test "never exceeds the ceiling" do
    assert {[_, _, _], _pace} = :fixed |> Pace.new(3) |> take_all()
    assert {[_, _], _pace} = :adaptive |> Pace.new(2) |> take_all()
  end

  test "never exceeds the ceiling, also when the limiter's limit rises while permits beside it are in use" do
    most =
      Enum.reduce(1..200, {0, [], :adaptive |> Pace.new(20) |> Pace.rush(1)}, fn _round, {most, beside, pace} ->
        {permits, pace} = take_all(pace)
        {slow, quick} = Enum.split_with(permits, &(&1 == :beside))
        most = max(most, length(permits) + length(beside))
        {most, slow ++ beside, give_all(pace, quick, :served)}
      end)

    assert elem(most, 0) == 20
  end

  test "a slow store does not reduce the starts below the initial number" do
    {permits, pace} = take_all(Pace.new(:adaptive, 50))
    assert length(permits) >= 8

    # Latency proportional to the starts in flight, as in a pure queue.
    pace =
      Enum.reduce(1..200, give_all(pace, permits, :served), fn _round, pace ->
        {permits, pace} = take_all(pace)
        Enum.reduce(permits, pace, &Pace.give(&2, &1, 10_000 * length(permits), :served))
      end)

    {permits, _pace} = take_all(pace)
    assert length(permits) >= 8
  end

  test "a failing store reduces the starts to the limiter's minimum, at least one" do
    pace =
      Enum.reduce(1..50, Pace.new(:adaptive, 50), fn _round, pace ->
        {permits, pace} = take_all(pace)
        give_all(pace, permits, :overload)
      end)

    {permits, _pace} = take_all(pace)
    assert length(permits) in 1..7
  end

  test "while the source stops servers, receivers share 100 starts, and afterwards each has the initial number" do
    pace = Pace.new(:adaptive, 40)
    calm = pace |> take_all() |> elem(0) |> length()
    assert pace |> Pace.rush(4) |> take_all() |> elem(0) |> length() == 25
    assert pace |> Pace.rush(1) |> take_all() |> elem(0) |> length() == 40, "never exceeds the ceiling"
    assert pace |> Pace.rush(50) |> take_all() |> elem(0) |> length() == calm
    assert pace |> Pace.rush(1) |> Pace.calm() |> take_all() |> elem(0) |> length() == calm
  end

  test "a returned permit can be used again" do
    {permits, pace} = take_all(Pace.new(:fixed, 4))
    {again, _pace} = pace |> give_all(permits, :neutral) |> take_all()
    assert length(again) == 4
  end
end
