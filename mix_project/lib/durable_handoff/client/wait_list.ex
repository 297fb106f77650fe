defmodule DurableHandoff.Client.WaitList do
  @moduledoc false
  # The waiting callers, by key. A caller waits for one key at a time, so its pid identifies its entry.

  @typedoc "`dead`: processes that the caller knows to be gone, but that a lagging registry may still return."
  @type waiter :: %{
          from: GenServer.from(),
          monitor: reference(),
          dead: [pid()],
          start: nil | {module(), initial_state :: map() | :stored},
          until_us: integer() | :infinity
        }
  @type key :: term()
  @opaque t :: %{keys: %{key() => %{pid() => waiter()}}, callers: %{pid() => key()}}

  @spec new() :: t()
  def new, do: %{keys: %{}, callers: %{}}

  @doc "The number of callers that wait."
  @spec count(t()) :: non_neg_integer()
  def count(waiters), do: map_size(waiters.callers)

  @doc "The number of callers that wait for `key`."
  @spec count(t(), key()) :: non_neg_integer()
  def count(%{keys: keys}, key) do
    case keys do
      %{^key => waiting} -> map_size(waiting)
      %{} -> 0
    end
  end

  @doc "The keys that callers wait for."
  @spec keys(t()) :: [key()]
  def keys(waiters), do: Map.keys(waiters.keys)

  @doc "The caller `pid` waits for `key` from now on."
  @spec add(t(), key(), pid(), waiter()) :: t()
  def add(waiters, key, pid, waiter) do
    waiting = waiters.keys |> Map.get(key, %{}) |> Map.put(pid, waiter)
    %{keys: Map.put(waiters.keys, key, waiting), callers: Map.put(waiters.callers, pid, key)}
  end

  @doc "Removes the caller `pid`. Returns what it waited for, nil when it did not."
  @spec remove(t(), pid()) :: {{key(), waiter()} | nil, t()}
  def remove(waiters, pid) do
    case waiters.callers do
      %{^pid => key} ->
        {waiter, waiting} = waiters.keys |> Map.fetch!(key) |> Map.pop!(pid)
        {{key, waiter}, %{keys: put(waiters.keys, key, waiting), callers: Map.delete(waiters.callers, pid)}}

      %{} ->
        {nil, waiters}
    end
  end

  @doc "Removes and returns the callers of `key` for which `wanted?` is true."
  @spec take(t(), key(), (waiter() -> boolean())) :: {[waiter()], t()}
  def take(waiters, key, wanted?) do
    {taken, rest} = waiters.keys |> Map.get(key, %{}) |> Enum.split_with(fn {_pid, waiter} -> wanted?.(waiter) end)
    {pids, taken} = Enum.unzip(taken)
    {taken, %{keys: put(waiters.keys, key, Map.new(rest)), callers: Map.drop(waiters.callers, pids)}}
  end

  @doc """
  The caller with the most time left among those that wait for `key` and want it started, if possible as a server of
  another module than `tried`.
  """
  @spec starter(t(), key(), tried :: nil | module()) :: waiter() | nil
  def starter(%{keys: keys}, key, tried) do
    keys
    |> Map.get(key, %{})
    |> Map.values()
    |> Enum.filter(& &1.start)
    # In Erlang's term order true is greater than false, and atoms are greater than numbers, so :infinity comes first.
    |> Enum.max_by(&{elem(&1.start, 0) != tried, &1.until_us}, fn -> nil end)
  end

  defp put(keys, key, waiting) when waiting == %{}, do: Map.delete(keys, key)
  defp put(keys, key, waiting), do: Map.put(keys, key, waiting)
end
