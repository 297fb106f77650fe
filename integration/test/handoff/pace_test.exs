defmodule Handoff.PaceTest do
  @moduledoc "max_per_second, on a clock that the test sets: at each instant exactly one attempt begins, however long it lasts."

  use HandoffCase, nodes: 2

  setup %{nodes: [a, b]} do
    # Its clock stands still for the rest of its life.
    frozen = start_node()
    {:ok, nodes: [frozen, a, b], frozen: frozen}
  end

  # Two a second.
  @interval_ms 500
  @servers 4

  test "a drain begins no more moves than that", %{frozen: frozen} = context do
    start_cluster(context)
    start_servers(context, frozen, @servers)
    listen_to_telemetry(frozen)
    FrozenClock.freeze(frozen)
    assert {:ok, :started} = drain(context, frozen, await: false, max_per_second: 2)
    attempts = step(fn -> status(context, frozen) end, frozen, 1)
    wait_until(fn -> match?(%{state: :drained}, status(context, frozen)) end)
    assert %{report: %{moved: @servers, attempts: ^attempts}} = status(context, frozen)
  end

  test "a rebalance begins no more moves than that", %{frozen: frozen} = context do
    start_cluster(context)
    start_servers(context, frozen, @servers)
    listen_to_telemetry(frozen)
    FrozenClock.freeze(frozen)
    # One server of four stays at most on the node that has them all.
    options = [await: false, max_per_second: 2, after_ms: 0, min_servers: 0]
    assert {:ok, :started} = call(frozen, DurableHandoff, :rebalance, [context.sup, options])
    attempts = step(fn -> status(context, frozen).rebalance end, frozen, 1)
    wait_until(fn -> match?(%{state: :ended}, status(context, frozen).rebalance) end)
    assert %{report: %{attempts: ^attempts, moved: moved}} = status(context, frozen).rebalance
    assert moved in [2, 3]
  end

  # Waits for the one attempt of this instant, and sets the clock forward until no more come. How many there were.
  defp step(state, frozen, instant) do
    assert_receive {:event, [:durable_handoff, :attempt, _stop], _measured, _metadata}, 30_000
    wait_until(fn -> match?(%{progress: %{in_flight: 0}}, state.()) end)
    assert %{progress: %{moved: moved}} = before = state.()
    assert moved <= instant
    refute_received {:event, [:durable_handoff, :attempt, _stop], _measured, _metadata}

    if ended?(before) do
      instant
    else
      FrozenClock.advance(frozen, @interval_ms)
      wait_until(fn -> ended?(state.()) or under_way?() end)
      if under_way?(), do: step(state, frozen, instant + 1), else: instant
    end
  end

  defp ended?(%{state: state}), do: state in [:drained, :ended]

  # Whether the next attempt has ended.
  defp under_way? do
    {:messages, messages} = Process.info(self(), :messages)
    Enum.any?(messages, &match?({:event, [:durable_handoff, :attempt, _stop], _measured, _metadata}, &1))
  end

  defp status(context, node) do
    {:ok, status} = call(node, DurableHandoff, :status, [context.sup])
    status
  end
end
