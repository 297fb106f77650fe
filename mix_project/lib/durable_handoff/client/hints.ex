defmodule DurableHandoff.Client.Hints do
  @moduledoc false
  # New owners that draining nodes have sent. A hint is needed until this node's registry has the owner.
  #
  # A hint only names a process to try. It can be wrong or old, so it never overrides the registry, and a hint
  # whose process a caller has found dead is dropped. The latest hint for a key counts.
  #
  # Bounds: a hint lives for 30 to 60 seconds after it arrived or was last used, and at most `max/0` are kept.
  # So there are two generations: hints are added to the younger one, which becomes the older one when it is
  # half full or 30 seconds old.

  @generation_us 30_000_000
  @max 20_000

  @type key :: term()
  @opaque t :: %{young: %{key() => pid()}, old: %{key() => pid()}, since_us: integer()}

  @spec new(now_us :: integer()) :: t()
  def new(now_us), do: %{young: %{}, old: %{}, since_us: now_us}

  @doc "The largest number of hints that are kept."
  @spec max() :: pos_integer()
  def max, do: @max

  @doc "The number of hints that are kept."
  @spec count(t()) :: non_neg_integer()
  def count(hints), do: map_size(hints.young) + map_size(hints.old)

  @spec put(t(), key(), pid(), now_us :: integer()) :: t()
  def put(hints, key, pid, now_us) do
    hints = age(hints, now_us)
    %{hints | young: Map.put(hints.young, key, pid), old: Map.delete(hints.old, key)}
  end

  @doc "The hint for `key`. Marks it as used."
  @spec get(t(), key(), now_us :: integer()) :: {pid() | nil, t()}
  def get(hints, key, now_us) do
    case age(hints, now_us) do
      %{young: %{^key => pid}} = hints -> {pid, hints}
      %{old: %{^key => pid}} = hints -> {pid, put(hints, key, pid, now_us)}
      hints -> {nil, hints}
    end
  end

  @doc "Forgets the hint for `key`."
  @spec drop(t(), key()) :: t()
  def drop(hints, key), do: %{hints | young: Map.delete(hints.young, key), old: Map.delete(hints.old, key)}

  defp age(%{young: young, since_us: since_us} = hints, now_us) do
    cond do
      now_us - since_us >= 2 * @generation_us -> new(now_us)
      now_us - since_us >= @generation_us -> %{hints | young: %{}, old: young, since_us: since_us + @generation_us}
      map_size(young) >= div(@max, 2) -> %{hints | young: %{}, old: young, since_us: now_us}
      true -> hints
    end
  end
end
