defmodule DurableHandoff.Client.StartQueue do
  @moduledoc false
  # The servers that are being started for waiting callers, and those that are next.
  #
  # Each start runs in a process of its own, because DurableServer may take long; the owner of this value gets
  # its DOWN. The process has no supervisor: a start that outlives its owner is one more
  # `ensure_started_child`, and ends by itself.

  # The limit of parallel starts. Each start has requests to the store in flight, and a start of a server that
  # is being moved waits for the move.
  @max_running 64
  @longest_ms 10_000

  @type key :: term()
  @opaque t :: %{running: %{reference() => {key(), module()}}, known: %{key() => true}, queue: :queue.queue(key())}
  @type result :: {:ok, pid()} | {:again, term()} | {:error, term()}

  @spec new() :: t()
  def new, do: %{running: %{}, known: %{}, queue: :queue.new()}

  @doc "The number of starts that run or are queued."
  @spec count(t()) :: non_neg_integer()
  def count(starts), do: map_size(starts.known)

  @doc "Queues a start of `key`, unless one is queued or runs."
  @spec want(t(), key()) :: t()
  def want(%{known: known} = starts, key) when is_map_key(known, key), do: starts
  def want(starts, key), do: %{starts | known: Map.put(starts.known, key, true), queue: :queue.in(key, starts.queue)}

  @doc """
  The key to start next; the caller passes it to `run/4` or `drop/2`. nil when none is queued or the limit is
  reached.
  """
  @spec next(t()) :: {key(), t()} | nil
  def next(%{running: running}) when map_size(running) >= @max_running, do: nil

  def next(starts) do
    case :queue.out(starts.queue) do
      {{:value, key}, queue} -> {key, %{starts | queue: queue}}
      {:empty, _queue} -> nil
    end
  end

  @doc "Runs `work`, which starts `key` as a server of `module`, in a process. Pass its DOWN to `ended/2` and `result/1`."
  @spec run(t(), key(), module(), work :: (() -> result())) :: t()
  def run(starts, key, module, work) do
    {_pid, monitor} = spawn_monitor(fn -> exit({:shutdown, {__MODULE__, work.()}}) end)
    put_in(starts.running[monitor], {key, module})
  end

  @doc "Removes `key` because it needs no start any more."
  @spec drop(t(), key()) :: t()
  def drop(starts, key), do: %{starts | known: Map.delete(starts.known, key)}

  @doc "Removes the start with this `monitor` and returns its key and module, or nil if there is none."
  @spec ended(t(), reference()) :: {key(), module(), t()} | nil
  def ended(starts, monitor) do
    case starts.running do
      %{^monitor => {key, module}} -> {key, module, drop(%{starts | running: Map.delete(starts.running, monitor)}, key)}
      %{} -> nil
    end
  end

  @doc "The result of a start whose process ended with `reason`."
  @spec result(term()) :: result()
  def result({:shutdown, {__MODULE__, result}}), do: result
  def result(reason), do: {:error, reason}

  @doc """
  The time limit of one start, in milliseconds, for a caller that has `left_ms`: half of that, at most ten
  seconds.

  DurableServer may say only at the end of a start which process holds the lock (`{:unreachable, pid}`), or
  that the start has to be repeated; the other half is for that. Ending a start early costs only one read of
  the store, because the started process continues to boot.
  """
  @spec timeout_ms(timeout() | integer()) :: pos_integer()
  def timeout_ms(:infinity), do: @longest_ms
  def timeout_ms(left_ms), do: left_ms |> div(2) |> min(@longest_ms) |> max(1)
end
