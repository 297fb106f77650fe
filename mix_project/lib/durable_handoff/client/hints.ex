defmodule DurableHandoff.Client.Hints do
  @moduledoc false
  # New owners that draining nodes have sent, for the time until this node's registry has them.
  #
  # A hint is good for one thing: to try that process. It can be wrong or old, so it never overrides the
  # registry, and one that a caller has found dead is dropped. The latest hint for a key counts.
  #
  # Bounds: a hint lives for 30 to 60 seconds after it arrived or was last used, and there are at most
  # `max/0`. So there are two generations: hints are added to the younger one, which becomes the older one
  # when it is half full or 30 seconds old.

  @generation_ms 30_000
  @max 20_000

  @type key :: term()
  @opaque t :: %{young: %{key() => pid()}, old: %{key() => pid()}, since_ms: integer()}

  @spec new(now_ms :: integer()) :: t()
  def new(now_ms), do: %{young: %{}, old: %{}, since_ms: now_ms}

  @doc "The most hints that are kept."
  @spec max() :: pos_integer()
  def max, do: @max

  @doc "How many hints are kept."
  @spec count(t()) :: non_neg_integer()
  def count(hints), do: map_size(hints.young) + map_size(hints.old)

  @spec put(t(), key(), pid(), now_ms :: integer()) :: t()
  def put(hints, key, pid, now_ms) do
    hints = age(hints, now_ms)
    %{hints | young: Map.put(hints.young, key, pid), old: Map.delete(hints.old, key)}
  end

  @doc "The hint for `key`, which then counts as used."
  @spec get(t(), key(), now_ms :: integer()) :: {pid() | nil, t()}
  def get(hints, key, now_ms) do
    case age(hints, now_ms) do
      %{young: %{^key => pid}} = hints -> {pid, hints}
      %{old: %{^key => pid}} = hints -> {pid, put(hints, key, pid, now_ms)}
      hints -> {nil, hints}
    end
  end

  @doc "Forgets the hint for `key`."
  @spec drop(t(), key()) :: t()
  def drop(hints, key), do: %{hints | young: Map.delete(hints.young, key), old: Map.delete(hints.old, key)}

  defp age(%{young: young, since_ms: since_ms} = hints, now_ms) do
    cond do
      now_ms - since_ms >= 2 * @generation_ms -> new(now_ms)
      now_ms - since_ms >= @generation_ms -> %{hints | young: %{}, old: young, since_ms: since_ms + @generation_ms}
      map_size(young) >= div(@max, 2) -> %{hints | young: %{}, old: young, since_ms: now_ms}
      true -> hints
    end
  end
end
