defmodule DurableHandoff.Drain.EstimateTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Options
  alias DurableHandoff.Drain.Estimate

  defp drain_ms(measured, moves, given \\ []), do: Estimate.make(measured, moves, 3, Options.new!(given)).drain_ms

  # Measured drains on these stores, on two cores that all nodes shared: without other work, or, for "a busy
  # machine", at a load of 20 to 30.
  for {store, measured, moves, took_ms} <- [
        {"8 slots of 10 ms", %{round_trip_us: 10_900, per_second: 660.0}, 500, 2_800},
        {"10 ms, no limit", %{round_trip_us: 10_900, per_second: :infinity}, 800, 1_400},
        {"moto", %{round_trip_us: 4_500, per_second: 210.0}, 200, 4_400},
        {"no latency", %{round_trip_us: 410, per_second: 16_357.0, remote_us: 12.1}, 1_000, 580},
        {"no latency, read", %{round_trip_us: 186, per_second: 16_943.0, remote_us: 12.5}, 1_000, 580},
        {"directory", %{round_trip_us: 2_145, per_second: 1_859.0, remote_us: 11.5}, 1_000, 2_950},
        {"directory, another time", %{round_trip_us: 2_485, per_second: 1_651.0, remote_us: 11.8}, 1_000, 4_410},
        {"no latency, a busy machine", %{round_trip_us: 472, per_second: 1_971.0, remote_us: 78.0}, 1_000, 4_390},
        {"no latency, busier", %{round_trip_us: 103, per_second: 7_473.0, remote_us: 34.1}, 1_000, 1_880},
        {"directory, a busy machine", %{round_trip_us: 2_628, per_second: 1_170.0, remote_us: 30.0}, 1_000, 3_910},
        {"directory, busier", %{round_trip_us: 2_462, per_second: 738.0, remote_us: 77.3}, 1_000, 8_570}
      ] do
    test "within a factor of two: #{store}" do
      ratio = drain_ms(unquote(Macro.escape(measured)), unquote(moves)) / unquote(took_ms)
      assert ratio > 0.5 and ratio < 2.0
    end
  end

  test "busy processors make moves slower, but only a little if the store is the limit" do
    quick = %{round_trip_us: 100, per_second: 16_000.0, remote_us: 12.0}
    assert_in_delta drain_ms(%{quick | remote_us: 120.0}, 10_000) / drain_ms(quick, 10_000), 10.0, 3.0
    slow = %{round_trip_us: 10_000, per_second: 200.0, remote_us: 12.0}
    assert drain_ms(%{slow | remote_us: 24.0}, 1_000) < 1.1 * drain_ms(slow, 1_000)
    assert drain_ms(%{slow | remote_us: nil}, 1_000) == drain_ms(Map.delete(slow, :remote_us), 1_000)
  end

  test "a store that writes slower than it reads makes moves slower, one that writes faster does not" do
    measured = %{round_trip_us: 200, per_second: 20_000.0}
    assert Estimate.with_writes(measured, nil) == measured
    assert Estimate.with_writes(measured, 100) == measured
    # One read and three writes: (200 + 3 * 1,000) / 4. Two thirds as many at a time: 20,000 * 4 / (1 + 3 * 5 * 1.5).
    assert %{round_trip_us: 800, per_second: per_second} = Estimate.with_writes(measured, 1_000)
    assert_in_delta per_second, 3_404, 1
    assert Estimate.with_writes(%{measured | per_second: :infinity}, 1_000).per_second == :infinity
  end

  test "writes that only waited for processors show no limit of the store" do
    # 1,000 servers were asked, half of them had something to store.
    quick = %{written: 500, asked: 1_000, span_us: 50_000, shortest_us: 400}
    measured = quick |> Estimate.of_writes(50) |> Estimate.with_processors(18.6)
    # Measured: 750 ms.
    assert_in_delta drain_ms(measured, 1_000), 750, 200

    for {span_ms, shortest_us} <- [{270, 2_100}, {630, 10_000}] do
      slow = %{quick | span_us: span_ms * 1_000, shortest_us: shortest_us}
      assert %{per_second: per_second} = slow |> Estimate.of_writes(50) |> Estimate.with_processors(18.6)
      assert_in_delta per_second, 500_000 / span_ms, 1
    end
  end

  test "more servers or a slower store take longer, and a fixed concurrency does not rise" do
    store = %{round_trip_us: 10_000, per_second: :infinity}
    assert drain_ms(store, 200) < drain_ms(store, 400)
    assert drain_ms(store, 200) < drain_ms(%{store | round_trip_us: 30_000}, 200)
    assert drain_ms(store, 200, concurrency: :fixed) < drain_ms(store, 200)
    assert drain_ms(store, 200) < drain_ms(store, 200, max_concurrency_per_target: 1)
    assert drain_ms(store, 0) < drain_ms(store, 1)
  end

  test "max_per_second: a drain takes as long as it spreads its moves, and as many fit" do
    store = %{round_trip_us: 1_000, per_second: :infinity}
    options = Options.new!(max_per_second: 10)
    assert %{drain_ms: drain_ms, fit: fit} = Estimate.make(store, 1_000, 3, options)
    assert_in_delta drain_ms, 100_000, 1_000
    assert_in_delta fit, 300, 5
    assert drain_ms(store, 1_000, max_per_second: 10_000) == drain_ms(store, 1_000)
  end

  describe "the number of moves with which a drain starts" do
    defp start(written, span_ms, shortest_ms) do
      %{written: written, asked: written, span_us: span_ms * 1_000, shortest_us: shortest_ms * 1_000}
      |> Estimate.of_writes(50)
      |> Estimate.start()
    end

    test "no write has waited in the store: as many moves as parallel writes" do
      assert %{limit: 50, knee: false} = start(500, 110, 10)
      # As on a busy machine.
      assert %{limit: 50, knee: false} = start(500, 190, 10)
    end

    test "a store with few slots: as many moves as it served requests at a time" do
      assert %{limit: 8, latency_us: latency_us} = start(500, 630, 10)
      assert latency_us in 42_000..70_000
      assert %{limit: 1} = start(100, 1_000, 10)
    end

    test "a busy machine makes a store look smaller: the limiter searches from there" do
      assert %{limit: 5, knee: false} = start(500, 1_000, 10)
    end

    test "nothing is known of the store if the processors are the limit" do
      processors = %{written: 500, asked: 500, span_us: 100_000, shortest_us: 300}
      assert processors |> Estimate.of_writes(50) |> Estimate.start() == nil
    end
  end

  test "a drain that starts from an earlier measurement is estimated with the earlier rate" do
    learnt = %{limit: 8, latency_us: 42_000, knee: true}
    # 1,000 moves, eight at a time.
    assert_in_delta drain_ms(Estimate.of_learnt(learnt), 1_000), 1_000 / 8 * 42, 600
    unlimited = Estimate.of_learnt(%{learnt | limit: 50, knee: false})
    assert drain_ms(unlimited, 1_000) < drain_ms(%{round_trip_us: 10_500, per_second: :infinity}, 1_000)
    # If the processors were the limit, the time of a move includes waiting for them.
    assert_in_delta drain_ms(Estimate.of_learnt(%{limit: 10, latency_us: 5_000, knee: true}), 1_000), 500, 100
  end

  test "what an earlier drain has learnt takes precedence over a new measurement" do
    measured = %{round_trip_us: 200, per_second: 20_000.0, remote_us: 12.0}
    learnt = %{limit: 10, latency_us: 20_000, knee: true}
    assert Estimate.with_learnt(measured, nil) == measured
    assert_in_delta drain_ms(Estimate.with_learnt(measured, learnt), 1_000), 2_000, 100
    assert drain_ms(Estimate.with_learnt(measured, %{learnt | knee: false}), 1_000) < 1_000
  end

  test "time for storing states first is included, and fewer servers fit" do
    options = Options.new!(timeout_ms: 5_000)

    for measured <- [%{round_trip_us: 10_000, per_second: 800.0}, %{round_trip_us: 50_000, per_second: :infinity}] do
      moves_only = Estimate.make(measured, 1_000, 3, options)
      all = Estimate.make(measured, 1_000, 3, options, {1_000, 50})
      # One request for each state beside the four of a move.
      assert_in_delta all.drain_ms / moves_only.drain_ms, 1.25, 0.1
      assert all.fit < moves_only.fit
    end
  end

  test "the number of servers that fit matches the estimated time" do
    for per_second <- [:infinity, 50.0, 800.0], moves <- [1, 30, 1_000, 50_000], timeout_ms <- [200, 5_000, 60_000] do
      measured = %{round_trip_us: 8_000, per_second: per_second}
      estimate = Estimate.make(measured, moves, 3, Options.new!(timeout_ms: timeout_ms))
      assert estimate.fit in 0..moves
      if estimate.drain_ms > timeout_ms, do: assert(estimate.fit < moves)
      if estimate.drain_ms < 0.9 * timeout_ms, do: assert(estimate.fit >= moves - 20)
    end
  end
end
