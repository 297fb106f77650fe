defmodule DurableHandoff.ReportTest do
  use ExUnit.Case, async: true

  @moduletag :capture_log

  alias DurableHandoff.Drainer.Announcement
  alias DurableHandoff.{LogEvents, Report}

  @engine %{
    total: 500,
    moved: 497,
    left: %{no_target: 2, deadline: 1, capacity: 0},
    retried: 4,
    gap_us: %{count: 497, p50: 35_250, p90: 50_000, p99: 80_000, max: 120_000},
    duration_us: 2_000_000,
    targets: [{"a@h", 250}, {"b@h", 247}, {"c@h", 0}],
    concurrency: %{last: 8, highest: 16},
    attempts: 505,
    failures: 8,
    ended: :deadline
  }

  defp report(engine \\ @engine, about) do
    defaults = %{
      supervisor: Sup,
      excluded: 0,
      duration_us: 2_812_000,
      executor: :embedded,
      executors_lost: [],
      first_errors: []
    }

    Report.new(engine, Map.merge(defaults, Map.new(about)))
  end

  test "a rebalance that moves nothing names why servers stayed" do
    balance = %{idle: nil, excess: 10, before: [], after: [%{name: "a@h", servers: 20, share: 10.0}]}
    idle = %{@engine | total: 10, moved: 0, left: %{kept: 10}, targets: [], attempts: 0, failures: 0, ended: :done}
    report = idle |> Map.put(:balance, balance) |> report(goal: :rebalance, moved_lately: 20)

    # Not "left 20": only 10 were to move.
    assert to_string(report) == "rebalance: moved 0 of 10 above this node's share; could not move: moved_lately 20"

    # What stays is this node's share then.
    refute to_string(%{report | moved: 10}) =~ "moved_lately"

    plan = %DurableHandoff.Plan{
      supervisor: Sup,
      total: 30,
      moves: [],
      stays: [],
      targets: %{},
      left: %{kept: 10, moved_lately: 20},
      estimate: nil,
      balance: balance
    }

    assert to_string(plan) =~ "moved_lately 20"
    refute to_string(plan) =~ "kept"
  end

  test "a rebalance has nothing left to move when a server above the share has ended by itself" do
    balance = %{idle: nil, excess: 5, before: [], after: []}
    ended = %{@engine | total: 10, moved: 4, left: %{kept: 5, gone: 1}, failures: 0, ended: :done}
    report = ended |> Map.put(:balance, balance) |> report(goal: :rebalance, moved_lately: 3)
    refute to_string(report) =~ "could not move"
    announce = fn report -> LogEvents.collect(fn -> Announcement.rebalanced(Sup, {:ok, report}) end) end
    assert {:ok, [{:info, :rebalance_ended, %{report: ^report}}]} = announce.(report)

    fewer = %{report | moved: 3}
    assert to_string(fewer) =~ "could not move: moved_lately 3"
    assert {:ok, [{:warning, :rebalance_ended, %{report: ^fewer}}]} = announce.(fewer)
  end

  test "each server is counted once, also those that the policy excludes" do
    report = report(excluded: 7)
    assert report.total == 507
    assert report.left == %{no_target: 2, deadline: 1, excluded: 7}
    assert report.moved + Enum.sum(Map.values(report.left)) == report.total
  end

  test "reasons and targets without servers are left out" do
    report = report([])
    refute Map.has_key?(report.left, :capacity)
    refute Map.has_key?(report.left, :excluded)
    assert report.targets == %{"a@h" => 250, "b@h" => 247}
  end

  test "times are in milliseconds, and the duration is the whole drain's" do
    report = report([])
    assert report.gap_ms == %{count: 497, p50: 35.25, p90: 50.0, p99: 80.0, max: 120.0}
    assert report.duration_ms == 2812.0
  end

  test "the log line has counts, gaps and reasons" do
    assert to_string(report([])) ==
             "moved 497 of 500 in 2.8 s to a@h 250, b@h 247; gap p50 35 ms, p99 80 ms, max 120 ms; at most 16 at a time; " <>
               "retried 4; left 3 (deadline 1, no_target 2); ended early: deadline"
  end

  test "the log line names the Rust node that coordinated, and those that were lost" do
    assert to_string(report(executor: {:node, :rust@h})) =~ "; coordinated by rust@h"
    assert to_string(report(executors_lost: [{:rust@h, :silent}])) =~ "; went on without rust@h"
  end

  test "an operator gets the report in the engine's terms" do
    expected =
      Map.merge(@engine, %{total: 507, left: %{no_target: 2, deadline: 1, excluded: 7}, duration_us: 2_812_000})

    assert Report.to_engine(report(excluded: 7)) == %{expected | targets: [{"a@h", 250}, {"b@h", 247}]}
  end

  test "a drain without servers" do
    nothing = %{
      @engine
      | total: 0,
        moved: 0,
        left: %{},
        retried: 0,
        gap_us: %{count: 0, p50: 0, p90: 0, p99: 0, max: 0},
        targets: [],
        attempts: 0,
        failures: 0,
        ended: :done
    }

    assert to_string(report(nothing, [])) == "moved 0 of 0 in 2.8 s"
  end
end
