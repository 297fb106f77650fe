defmodule DurableHandoff.Drain.Processors do
  @moduledoc false
  # Measures how fast the processors of this node and of its targets are under their present load.
  #
  # The unit is the time to start a process on another node and see it end, which every move does too: it
  # involves both nodes and their connection, but no store. `DurableHandoff.Drain.Estimate` has the cost of a
  # move in this unit.

  alias DurableHandoff.Clock

  # As many as a drain moves in parallel, so that a busy machine slows both in the same way.
  @at_a_time 50
  # The drain waits for these: four milliseconds on two idle cores that all nodes share.
  @starts_of_each 2
  # The shorter one counts, so a momentary delay of one does not matter.
  @looks 2
  @limit_ms 100
  # Fewer starts are too few to measure.
  @least 50

  @doc """
  The time of one start on `nodes`, in microseconds, with #{@at_a_time} in parallel: the shorter of #{@looks}
  measurements. nil when fewer than #{@least} ended in `limit_ms`. Takes at most about twice that.
  """
  @spec measure([node()], limit_ms :: pos_integer()) :: float() | nil
  def measure(nodes, limit_ms \\ @limit_ms) do
    # The first start on each node is not measured: it may open a connection or load code.
    nodes = Enum.take(nodes, @at_a_time)
    answered = each(nodes, &start(&1, Clock.after_ms(limit_ms)))
    nodes = for {node, true} <- Enum.zip(nodes, answered), do: node
    if nodes != [], do: nodes |> List.to_tuple() |> shortest(Clock.after_ms(limit_ms))
  end

  defp shortest(nodes, until_us) do
    looks = for _ <- 1..@looks, start_us = starts(nodes, until_us), do: start_us
    Enum.min(looks, fn -> nil end)
  end

  defp starts(nodes, until_us) do
    began_us = Clock.now_us()
    started = 1..@at_a_time |> each(&starts(&1, nodes, until_us, 0)) |> Enum.sum()
    if started >= @least, do: max(Clock.now_us() - began_us, 1) / started
  end

  defp starts(_next, _nodes, _until_us, @starts_of_each), do: @starts_of_each

  defp starts(next, nodes, until_us, started) do
    if start(elem(nodes, rem(next, tuple_size(nodes))), until_us),
      do: starts(next + 1, nodes, until_us, started + 1),
      else: started
  end

  defp start(node, until_us) do
    left_ms = Clock.until_ms(until_us)
    left_ms > 0 and :erpc.call(node, :erlang, :is_alive, [], left_ms) in [true, false]
  catch
    _kind, _reason -> false
  end

  # Each process ends by itself.
  defp each(items, work) do
    items
    |> Task.async_stream(work, max_concurrency: @at_a_time, ordered: true, timeout: :infinity)
    |> Enum.map(fn {:ok, result} -> result end)
  end
end
