defmodule SimulatedStore.Stats do
  @moduledoc """
  The statistics of a `SimulatedStore`: requests, counted when they are answered; the most that were served at
  a time; and the requests at the store, served or queued: the maximum, and the average over the time in which
  there were any (`outstanding_us` divided by `busy_us`).
  """

  @type t :: %{
          counts: %{atom() => non_neg_integer()},
          outstanding: non_neg_integer(),
          since_us: integer()
        }

  @spec new(non_neg_integer(), non_neg_integer()) :: t()
  def new(serving \\ 0, outstanding \\ 0) do
    counts = %{get: 0, put: 0, claim: 0, delete: 0, list: 0, conflict: 0, error: 0, max_in_flight: serving}
    load = %{max_outstanding: outstanding, outstanding_us: 0, busy_us: 0}
    %{counts: Map.merge(counts, load), outstanding: outstanding, since_us: now_us()}
  end

  @doc "The statistics in the form in which users get them."
  @spec shown(t()) :: %{atom() => non_neg_integer()}
  def shown(stats), do: passed(stats).counts

  @doc "Records that a request has arrived."
  @spec arrived(t()) :: t()
  def arrived(stats) do
    stats = passed(stats)
    outstanding = stats.outstanding + 1
    %{max(stats, :max_outstanding, outstanding) | outstanding: outstanding}
  end

  @spec serving(t(), non_neg_integer()) :: t()
  def serving(stats, serving), do: max(stats, :max_in_flight, serving)

  @spec answered(t(), {atom(), String.t(), term()}, term()) :: t()
  def answered(stats, {op, _key, _arg}, answer) do
    stats = passed(stats)
    stats = add(%{stats | outstanding: stats.outstanding - 1}, op, 1)

    case answer do
      {:error, refused} when refused in [:conflict, :already_claimed] -> add(stats, :conflict, 1)
      {:error, :not_found} -> stats
      {:error, _reason} -> add(stats, :error, 1)
      _ok -> stats
    end
  end

  # Adds a span of time with this many requests at the store.
  defp passed(%{outstanding: 0} = stats), do: %{stats | since_us: now_us()}

  defp passed(stats) do
    now_us = now_us()
    elapsed_us = now_us - stats.since_us

    %{stats | since_us: now_us}
    |> add(:outstanding_us, elapsed_us * stats.outstanding)
    |> add(:busy_us, elapsed_us)
  end

  defp add(stats, name, count), do: %{stats | counts: Map.update!(stats.counts, name, &(&1 + count))}
  defp max(stats, name, count), do: %{stats | counts: Map.update!(stats.counts, name, &Kernel.max(&1, count))}

  defp now_us, do: System.monotonic_time(:microsecond)
end
