defmodule Load do
  @moduledoc """
  Clients on a node that increment random counters through `DurableHandoff.call/4`, one call after the other,
  until they are stopped.
  """

  @enforce_keys [:pids]
  defstruct [:pids]

  @type t :: %__MODULE__{pids: [pid()]}
  @type tally :: %{ok: %{String.t() => pos_integer()}, failed: [term()]}

  @doc "Starts `count` clients on each of `nodes`."
  @spec start([node()], pos_integer(), atom(), [String.t()], keyword()) :: t()
  def start(nodes, count, supervisor, keys, opts \\ []) do
    test = self()

    pids =
      for node <- nodes,
          _ <- 1..count,
          do: Node.spawn(node, __MODULE__, :run, [test, supervisor, List.to_tuple(keys), opts])

    load = %__MODULE__{pids: pids}
    # The load has started when every client has had an answer.
    for pid <- pids, do: await(pid, :first)
    load
  end

  @doc "Stops the clients when they have finished their calls, and returns the sum of their results."
  @spec stop(t()) :: tally()
  def stop(%__MODULE__{pids: pids}) do
    for pid <- pids, do: send(pid, :stop)

    Enum.reduce(pids, %{ok: %{}, failed: []}, fn pid, sum ->
      tally = await(pid, :tally)

      %{
        ok: Map.merge(sum.ok, tally.ok, fn _key, a, b -> a + b end),
        failed: tally.failed ++ sum.failed
      }
    end)
  end

  @doc "Makes `count` simultaneous calls from this node, each in its own process. Returns the results."
  @spec at_once(pos_integer(), atom(), String.t(), term(), keyword()) :: [term()]
  def at_once(count, supervisor, key, request, opts) do
    1..count
    |> Enum.map(fn _ -> Task.async(DurableHandoff, :call, [supervisor, key, request, opts]) end)
    |> Task.await_many(:infinity)
  end

  @doc false
  @spec run(pid(), atom(), tuple(), keyword()) :: term()
  def run(test, supervisor, keys, opts) do
    Process.monitor(test)
    tally = call(%{ok: %{}, failed: []}, supervisor, keys, opts)
    send(test, {self(), :first, tally.failed})
    loop(test, supervisor, keys, opts, tally)
  end

  defp loop(test, supervisor, keys, opts, tally) do
    receive do
      :stop -> send(test, {self(), :tally, tally})
      {:DOWN, _ref, :process, ^test, _reason} -> :ok
    after
      2 -> loop(test, supervisor, keys, opts, call(tally, supervisor, keys, opts))
    end
  end

  defp call(tally, supervisor, keys, opts) do
    key = elem(keys, :rand.uniform(tuple_size(keys)) - 1)

    case DurableHandoff.call(supervisor, key, :add, opts) do
      {:ok, _count} -> %{tally | ok: Map.update(tally.ok, key, 1, &(&1 + 1))}
      {:error, reason} -> %{tally | failed: [{key, reason} | tally.failed]}
    end
  end

  defp await(pid, what) do
    receive do
      {^pid, ^what, value} -> value
    after
      60_000 -> raise "a client on #{node(pid)} does not answer"
    end
  end
end
