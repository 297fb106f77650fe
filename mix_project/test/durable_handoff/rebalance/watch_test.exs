defmodule DurableHandoff.Rebalance.WatchTest do
  @moduledoc "When a node with the option `rebalance` rebalances, with a clock that the test sets."
  use ExUnit.Case, async: true

  alias DurableHandoff.Rebalance.Watch
  alias DurableHandoff.Report

  @after_ms 60_000
  @second_us 1_000_000
  @hour_us 3_600 * @second_us

  test "while another node stays cordoned it plans less and less often, at least once an hour" do
    {runs, _timing} = watch(Watch.timing(@after_ms, 0), fn _at_us -> [:a, :cordoned] end, idle(), 24 * @hour_us)
    assert length(runs) in 24..36
    waits = runs |> Enum.zip(tl(runs)) |> Enum.map(fn {earlier, later} -> later - earlier end)
    assert waits == Enum.sort(waits)
    assert List.last(waits) <= @hour_us + @second_us
  end

  test "a change is followed by a rebalance after after_ms, also after a long time without changes" do
    changed_us = 12 * @hour_us
    nodes = fn at_us -> if at_us < changed_us, do: [:a, :cordoned], else: [:a, :b] end
    {runs, timing} = watch(Watch.timing(@after_ms, 0), nodes, idle(), changed_us + 65 * @second_us)
    assert List.last(runs) == changed_us + @after_ms * 1_000
    # After that the waiting times start from the beginning.
    {[again | _], _timing} = watch(timing, nodes, idle(), changed_us + 300 * @second_us)
    assert again - changed_us <= 4 * @after_ms * 1_000
  end

  test "it does not wait longer after a rebalance that left servers which had arrived recently, and it waits for a change after one that moved everything" do
    {runs, _timing} = watch(Watch.timing(@after_ms, 0), fn _at_us -> [:a] end, lately(), @hour_us)
    assert length(runs) == 59 or length(runs) == 60
    assert {[_once], _timing} = watch(Watch.timing(@after_ms, 0), fn _at_us -> [:a] end, done(), 24 * @hour_us)
  end

  test "it tries again after a rebalance that ended early, or did not know a load, or lost its Rust node, and not after one that was cancelled" do
    for {ended, idle, moved} <- [
          {:deadline, nil, 4},
          {:deadline, nil, 0},
          {:failures, nil, 0},
          {:done, :unknown_load, 0},
          {:done, :coordinator_lost, 0},
          {:done, :coordinator_lost, 4}
        ] do
      reason = rebalanced(moved, ended: ended, idle: idle)
      {runs, _timing} = watch(Watch.timing(@after_ms, 0), fn _at_us -> [:a] end, reason, 24 * @hour_us)
      assert {ended, idle, moved, length(runs) > 20} == {ended, idle, moved, true}
    end

    cancelled = rebalanced(4, ended: :cancelled)
    assert {[_once], _timing} = watch(Watch.timing(@after_ms, 0), fn _at_us -> [:a] end, cancelled, 24 * @hour_us)
  end

  test "servers that have ended by themselves are no reason to try again" do
    for {left, again?} <- [{%{gone: 5, moved_lately: 2}, false}, {%{gone: 4, moved_lately: 2}, true}] do
      {runs, _timing} = watch(Watch.timing(@after_ms, 0), fn _at_us -> [:a] end, rebalanced(4, left: left), @hour_us)
      assert {left, length(runs) > 1} == {left, again?}
    end
  end

  test "a change during a rebalance makes the next one due, whatever its result" do
    timing = Watch.timing(@after_ms, 0) |> Watch.look([:a], 0)
    timing = Watch.look(%{timing | due?: false}, [:a, :b], @second_us)
    assert Watch.due?(Watch.ended(timing, done(), 2 * @second_us), @second_us + @after_ms * 1_000)
  end

  @tag :capture_log
  test "a message that it does not know does not end it" do
    watch = start_supervised!({Watch, {NoSupervisor, @after_ms, fn -> :unused end}})
    send(watch, :odd)
    assert %{run: nil} = :sys.get_state(watch)
  end

  defp idle, do: rebalanced(0, idle: :node_draining)
  defp lately, do: rebalanced(4, left: %{moved_lately: 5})
  defp done, do: rebalanced(9)

  # The exit reason of a rebalance that moved `moved` of the nine servers above the share.
  defp rebalanced(moved, differs \\ []) do
    {idle, fields} = Keyword.pop(differs, :idle)
    fields = Map.merge(%{moved: moved, left: %{}, balance: %{idle: idle, excess: 9}}, Map.new(fields))
    {:rebalanced, {:ok, struct(Report, fields)}}
  end

  # Checks once a second until `end_us`. Each rebalance takes no time and ends with `reason`. Returns when
  # they began.
  defp watch(timing, nodes, reason, end_us) do
    first_us = div(timing.since_us, @second_us) + 1

    Enum.reduce(first_us..div(end_us, @second_us), {[], timing}, fn second, {runs, timing} ->
      now_us = second * @second_us
      timing = Watch.look(timing, nodes.(now_us), now_us)

      if Watch.due?(timing, now_us),
        do: {runs ++ [now_us], Watch.ended(%{timing | due?: false}, reason, now_us)},
        else: {runs, timing}
    end)
  end
end
