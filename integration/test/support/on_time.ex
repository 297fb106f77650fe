defmodule OnTime do
  @moduledoc """
  Whether a drain or a shutdown ends at its deadline, by the node's own clock.

      watch = OnTime.watch(a)
      ...
      OnTime.assert_ended(watch, :shutdown, 3_000)

  On a busy machine any process may be delayed for seconds. So processes on the node measure how late their
  timers fire, and the largest delay is allowed for each of the few steps between the deadline and the end.
  """

  import ExUnit.Assertions

  # For a Drainer that hangs the library waits 50 ms longer.
  @margin_ms 500
  @steps 10
  @interval_ms 5

  @type t :: {node(), [pid()]}

  @doc "Watches `node` until the test ends. Sends its telemetry to the test (`HandoffCase.Listening`)."
  @spec watch(node()) :: t()
  def watch(node) do
    HandoffCase.Listening.listen_to_telemetry(node)
    test = self()
    count = 2 * Cluster.call(node, System, :schedulers_online, [])
    {node, for(_ <- 1..count, do: Node.spawn(node, __MODULE__, :measure, [test]))}
  end

  @doc "Waits for the end of the `:shutdown` or `:drain`; fails unless it had `timeout_ms` and ended in time."
  @spec assert_ended(t(), :shutdown | :drain, pos_integer()) :: true
  def assert_ended({node, _measuring} = watch, what, timeout_ms) do
    assert_receive {:event, [:durable_handoff, ^what, :stop], measured, _metadata}, 60_000
    ms = &Cluster.call(node, System, :convert_time_unit, [&1, :native, :millisecond])
    assert ms.(measured.deadline - (measured.monotonic_time - measured.duration)) == timeout_ms
    assert ms.(measured.monotonic_time - measured.deadline) <= @margin_ms + @steps * held_ms(watch)
  end

  defp held_ms({_node, measuring}) do
    for pid <- measuring, do: send(pid, {:worst_ms, self()})

    Enum.max(
      for pid <- measuring do
        assert_receive {^pid, ms}, 60_000
        ms
      end
    )
  end

  @doc false
  def measure(test) do
    monitor = Process.monitor(test)
    measure(monitor, 0)
  end

  defp measure(monitor, worst_ms) do
    begun_ms = System.monotonic_time(:millisecond)

    receive do
      {:worst_ms, test} ->
        send(test, {self(), worst_ms})
        measure(monitor, worst_ms)

      {:DOWN, ^monitor, :process, _test, _reason} ->
        :ok
    after
      @interval_ms -> measure(monitor, max(worst_ms, System.monotonic_time(:millisecond) - begun_ms - @interval_ms))
    end
  end
end
