defmodule SimulatedStore.Stats do
  @moduledoc "What a `SimulatedStore` counts: requests when they are answered, and the most that were served at a time."

  @type t :: %{atom() => non_neg_integer()}

  @spec new(non_neg_integer()) :: t()
  def new(serving \\ 0),
    do: %{get: 0, put: 0, claim: 0, delete: 0, list: 0, conflict: 0, error: 0, max_in_flight: serving}

  @spec serving(t(), non_neg_integer()) :: t()
  def serving(stats, serving), do: %{stats | max_in_flight: max(stats.max_in_flight, serving)}

  @spec answered(t(), {atom(), String.t(), term()}, term()) :: t()
  def answered(stats, {op, _key, _arg}, answer) do
    stats = Map.update!(stats, op, &(&1 + 1))

    case answer do
      {:error, refused} when refused in [:conflict, :already_claimed] -> Map.update!(stats, :conflict, &(&1 + 1))
      {:error, :not_found} -> stats
      {:error, _reason} -> Map.update!(stats, :error, &(&1 + 1))
      _ok -> stats
    end
  end
end
