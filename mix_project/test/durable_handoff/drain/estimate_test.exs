defmodule DurableHandoff.Drain.EstimateTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Options
  alias DurableHandoff.Drain.Estimate

  doctest Estimate

  defp drain_ms(measured, moves, given \\ []), do: Estimate.make(measured, moves, 3, Options.new!(given)).drain_ms

  # Drains that were measured on the stores named, on two cores that all nodes shared.
  for {store, measured, moves, took_ms} <- [
        {"8 slots of 10 ms", %{round_trip_us: 10_900, per_second: 660.0}, 500, 2_800},
        {"10 ms, no limit", %{round_trip_us: 10_900, per_second: :infinity}, 800, 1_400},
        {"directory", %{round_trip_us: 160, per_second: 12_000.0}, 2_000, 5_000},
        {"moto", %{round_trip_us: 4_500, per_second: 210.0}, 200, 4_400}
      ] do
    test "within a factor of two: #{store}" do
      ratio = drain_ms(unquote(Macro.escape(measured)), unquote(moves)) / unquote(took_ms)
      assert ratio > 0.5 and ratio < 2.0
    end
  end

  test "more servers take longer, a slower store takes longer, and a fixed concurrency does not climb" do
    store = %{round_trip_us: 10_000, per_second: :infinity}
    assert drain_ms(store, 200) < drain_ms(store, 400)
    assert drain_ms(store, 200) < drain_ms(%{store | round_trip_us: 30_000}, 200)
    assert drain_ms(store, 200, concurrency: :fixed) < drain_ms(store, 200)
    assert drain_ms(store, 200) < drain_ms(store, 200, max_concurrency_per_target: 1)
    assert drain_ms(store, 0) < drain_ms(store, 1)
  end

  describe "what a drain may start with" do
    defp start(written, span_ms, shortest_ms) do
      %{written: written, span_us: span_ms * 1_000, shortest_us: shortest_ms * 1_000}
      |> Estimate.of_writes(50)
      |> Estimate.start()
    end

    test "a store on which no write has waited: as many moves as writes" do
      assert %{limit: 50, knee: false} = start(500, 110, 10)
      # A busy machine.
      assert %{limit: 50, knee: false} = start(500, 190, 10)
    end

    test "a store of few slots: as many as it has served at a time" do
      assert %{limit: 8, latency_us: latency_us} = start(500, 630, 10)
      assert latency_us in 42_000..70_000
      assert %{limit: 1} = start(100, 1_000, 10)
    end

    test "a busy machine makes few slots look like fewer: the search goes on from there" do
      assert %{limit: 5, knee: false} = start(500, 1_000, 10)
    end

    test "processors that are busier than the store say nothing about it" do
      assert Estimate.start(Estimate.of_writes(%{written: 500, span_us: 100_000, shortest_us: 300}, 50)) == nil
    end
  end

  test "the estimate of a drain that starts from an earlier one is that drain's rate" do
    learnt = %{limit: 8, latency_us: 42_000, knee: true}
    # 1,000 moves, eight at a time.
    assert_in_delta drain_ms(Estimate.of_learnt(learnt), 1_000), 1_000 / 8 * 42, 600
    unlimited = Estimate.of_learnt(%{learnt | limit: 50, knee: false})
    assert drain_ms(unlimited, 1_000) < drain_ms(%{round_trip_us: 10_500, per_second: :infinity}, 1_000)
  end

  test "states that are stored first take their time, and what fits is less" do
    options = Options.new!(timeout_ms: 5_000)

    for measured <- [%{round_trip_us: 10_000, per_second: 800.0}, %{round_trip_us: 50_000, per_second: :infinity}] do
      moves_only = Estimate.make(measured, 1_000, 3, options)
      all = Estimate.make(measured, 1_000, 3, options, {1_000, 50})
      # One request for each state beside the four of a move.
      assert_in_delta all.drain_ms / moves_only.drain_ms, 1.25, 0.1
      assert all.fit < moves_only.fit
    end
  end

  test "what fits agrees with how long it takes" do
    for per_second <- [:infinity, 50.0, 800.0], moves <- [1, 30, 1_000, 50_000], timeout_ms <- [200, 5_000, 60_000] do
      measured = %{round_trip_us: 8_000, per_second: per_second}
      estimate = Estimate.make(measured, moves, 3, Options.new!(timeout_ms: timeout_ms))
      assert estimate.fit in 0..moves
      if estimate.drain_ms > timeout_ms, do: assert(estimate.fit < moves)
      if estimate.drain_ms < 0.9 * timeout_ms, do: assert(estimate.fit >= moves - 20)
    end
  end
end
