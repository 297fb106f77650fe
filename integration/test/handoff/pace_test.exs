defmodule Handoff.PaceTest do
  @moduledoc """
  max_per_second with a clock that the test sets: in each interval at most one server begins to move.
  """

  use HandoffCase, nodes: 2

  setup %{nodes: [a, b]} do
    # Stops the node's clock for good.
    frozen = start_node()
    {:ok, nodes: [frozen, a, b], frozen: frozen}
  end

  # Two moves per second.
  @interval_ms 500
  @servers 4
  # How long to wait for starts at one instant. A repeated attempt may wait for the clock instead.
  @look_ms 300

  test "a drain begins no more moves per second than allowed", %{frozen: frozen} = context do
    start_cluster(context)
    start_servers(context, frozen, @servers)
    listen_to_telemetry(frozen)
    FrozenClock.freeze(frozen)
    assert {:ok, :started} = drain(context, frozen, await: false, max_per_second: 2)
    assert follow(fn -> now(context, frozen) end, frozen) == @servers
    assert %{report: %{moved: @servers}} = now(context, frozen)
  end

  test "a rebalance begins no more moves per second than allowed", %{frozen: frozen} = context do
    start_cluster(context)
    start_servers(context, frozen, @servers)
    listen_to_telemetry(frozen)
    FrozenClock.freeze(frozen)
    options = [await: false, max_per_second: 2, after_ms: 0, min_servers: 0]
    assert {:ok, :started} = call(frozen, DurableHandoff, :rebalance, [context.sup, options])
    assert follow(fn -> now(context, frozen).rebalance end, frozen) in [2, 3]
    assert %{report: %{moved: moved}} = now(context, frozen).rebalance
    assert moved in [2, 3]
  end

  test "a shutdown joins a drain/2 with a lower pace: it moves the rest at its own", %{frozen: frozen} = context do
    # In the time that passes the drain begins no second move. The shutdown would tell it to end in an hour.
    [app | _apps] = start_cluster(context, handoff_on_shutdown: [timeout_ms: 3_600_000])
    start_servers(context, frozen, @servers)
    listen_to_log(context, frozen)
    FrozenClock.freeze(frozen)
    draining = Task.async(fn -> drain(context, frozen, max_per_second: 1) end)
    repeats_until(context, fn -> match?(%{progress: %{moved: 1}}, now(context, frozen)) end)
    stopping = Task.async(fn -> stop_children(frozen, app) end)
    assert {:ok, %{ended: :cancelled, moved: 1, left: %{cancelled: 3}}} = await_task(draining)
    repeats_until(context, fn -> not Process.alive?(stopping.pid) end)
    {:warning, %{report: %{moved: 1}}} = await_log(frozen, :drain_ended)
    assert {:info, %{report: %{total: 3, moved: 3}}} = await_log(frozen, :drain_ended)
    assert :ok = await_task(stopping)
  end

  # The clock goes on only where an attempt waits for it because its target had not heard of a stop, and in all by less than
  # half a second.
  defp repeats_until(%{frozen: frozen} = context, condition) do
    clock = :counters.new(1, [])

    wait_until(fn ->
      waits? = match?({:ok, %{progress: %{in_flight: 0, waits_for: :target}}}, status(context, frozen))

      if waits? and :counters.get(clock, 1) < 49 do
        :counters.add(clock, 1, 1)
        FrozenClock.advance(frozen, 10)
      end

      condition.()
    end)
  end

  # Sets the clock forward until all moves have ended, each time only when nothing is in flight. Returns how
  # many servers began to move. Second attempts are not limited.
  defp follow(state, frozen, intervals \\ 0, begun \\ 0) do
    wait_until(fn -> match?(%{progress: %{in_flight: 0}}, state.()) end)
    ended? = state.().state in [:drained, :ended]
    begun = begun + begun(0)
    assert begun <= intervals + 1

    if ended? do
      begun
    else
      # No start must be due before the clock advances. An early advance would only allow more starts.
      more = if begun == intervals + 1, do: 0, else: begun(@look_ms)
      if more == 0, do: FrozenClock.advance(frozen, @interval_ms)
      follow(state, frozen, if(more == 0, do: intervals + 1, else: intervals), begun + more)
    end
  end

  # The first attempts that have ended since the last call.
  defp begun(wait_ms) do
    receive do
      {:event, [:durable_handoff, :attempt, _stop], _measured, %{attempt: 1}} -> 1 + begun(0)
    after
      wait_ms -> 0
    end
  end

  defp now(context, node) do
    {:ok, status} = status(context, node)
    status
  end
end
