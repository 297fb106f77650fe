defmodule DurableHandoff.Drain.Progress do
  @moduledoc false
  # The progress of a drain, for the log and for `DurableHandoff.status/1`.

  alias DurableHandoff.Options

  # native/handoff_core/src/report.rs
  @waits_for ~w(limit store target pace)a

  @typedoc "What a drain waits for while nothing is in flight although servers are left."
  @type waits_for :: unquote(DurableHandoff.Schema.union(@waits_for))

  @doc "Everything that a drain may wait for."
  @spec waits_for() :: [waits_for()]
  def waits_for, do: @waits_for

  @doc """
  The line that is logged every second.

      iex> DurableHandoff.Drain.Progress.line(:drain, %{total: 500, moved: 240, left: 10, in_flight: 8}, 2_000_000)
      "250/500 done (10 left as they are), 8 in flight, 125/s, about 2 s to go"

      iex> DurableHandoff.Drain.Progress.line(:drain, %{total: 9, moved: 0, left: 0, in_flight: 0, waits_for: :store}, 2_000_000)
      "0/9 done, 0 in flight, waits for: store, 0/s"

      iex> DurableHandoff.Drain.Progress.line(:move, %{total: 1, moved: 0, left: 0, in_flight: 1}, 3_000_000)
      "move: not done after 3 s"
  """
  @spec line(:drain | :move | :rebalance, map(), pos_integer()) :: String.t()
  def line(:rebalance, %{excess: excess, moved: moved} = progress, elapsed_us) do
    rate = moved * 1_000_000 / max(elapsed_us, 1)
    "rebalance: #{moved} of #{excess} moved, #{in_flight(progress)}, #{round(rate)}/s"
  end

  def line(:move, _counts, elapsed_us), do: "move: not done after #{div(elapsed_us, 1_000_000)} s"

  def line(:drain, %{total: total, moved: moved, left: left} = progress, elapsed_us) do
    done = moved + left
    rate = done * 1_000_000 / max(elapsed_us, 1)
    left_as_they_are = if left > 0, do: " (#{left} left as they are)", else: ""
    to_go = if rate > 0, do: ", about #{ceil((total - done) / rate)} s to go", else: ""
    "#{done}/#{total} done#{left_as_they_are}, #{in_flight(progress)}, #{round(rate)}/s#{to_go}"
  end

  defp in_flight(%{in_flight: in_flight, waits_for: waits_for}) when waits_for != nil,
    do: "#{in_flight} in flight, waits for: #{waits_for}"

  defp in_flight(%{in_flight: in_flight}), do: "#{in_flight} in flight"

  @doc """
  The line when servers have been asked to store their state.

      iex> DurableHandoff.Drain.Progress.stored(%{stored: 2_400, unchanged: 2_590, failed: 10}, 5_000, 1_200_000)
      "4990 of 5000 servers are stored after 1200 ms: 2400 wrote their state, 2590 had nothing to write; 10 could not"
  """
  @spec stored(DurableHandoff.Drain.Storing.counts(), non_neg_integer(), non_neg_integer()) :: String.t()
  def stored(%{stored: stored, unchanged: unchanged, failed: failed}, total, elapsed_us) do
    could_not = if failed > 0, do: "; #{failed} could not", else: ""

    "#{stored + unchanged} of #{total} servers are stored after #{div(elapsed_us, 1_000)} ms: #{stored} wrote their state, " <>
      "#{unchanged} had nothing to write#{could_not}"
  end

  @doc "The line at the start."
  @spec opening(non_neg_integer(), non_neg_integer(), non_neg_integer(), Options.t(), non_neg_integer()) :: String.t()
  def opening(servers, excluded, nodes, options, left_ms) do
    "draining #{servers} servers#{if excluded > 0, do: " (#{excluded} stay by policy)"} to #{nodes} connected nodes, at most " <>
      "#{options.max_concurrency} at a time, for at most #{left_ms} ms"
  end
end
