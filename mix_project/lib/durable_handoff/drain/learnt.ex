defmodule DurableHandoff.Drain.Learnt do
  @moduledoc false
  # What drains have measured of stores: the best number of parallel moves, and how long a move took at that
  # number.
  #
  # A drain sends its measurement to all visible nodes at its end. The next drain on the same store, on any
  # node, starts from there. In a rolling deploy only the first node searches. There is one process for each
  # VM.
  #
  # Guarantees:
  #
  #   * Data from other nodes is checked. At most 64 stores are kept, the latest ones, for 15 minutes each.
  #   * Sending never waits. A node without this library, or with an older version, drops the message.
  #   * The measurement is only a starting point: the limiter checks whether the first moves take as long
  #     (`native/handoff_core/src/limiter.rs`).
  #   * A limit that is only the `max_concurrency` of its drain (*capped*) counts for no drain that may move more at a
  #     time, and replaces no higher limit at which moves took about as long.

  use GenServer

  alias DurableHandoff.{Clock, Log}

  @keep_us 15 * 60 * 1_000_000
  @most 64
  @patience_ms 500
  # Upper bounds of valid data: the engine's highest number of parallel moves, and a day in microseconds.
  @most_at_a_time 10_000
  @longest_us 86_400_000_000
  @digits 32
  # Moves take about as long up to this factor: `SAME` of the limiter.
  @same 1.5

  # By the store's identity: what was learnt, and when. A capped limit has the key `capped`.
  defstruct stores: %{}

  @typedoc "`limit`: parallel moves. `knee`: true if the store was slower with more, false if more were not tried."
  @type t :: %{limit: pos_integer(), latency_us: pos_integer(), knee: boolean()}

  @doc "Started by the application."
  @spec start_link(term()) :: GenServer.on_start()
  def start_link(_arguments), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc """
  What was learnt in the last 15 minutes about the store with this identity
  (`DurableHandoff.Host.StorageIdentity`), for a drain that may make `max_concurrency` parallel moves. nil also if it is
  not known in time: the drain then searches by itself.
  """
  @spec get(String.t(), pos_integer(), timeout()) :: t() | nil
  def get(storage, max_concurrency, timeout_ms \\ @patience_ms) do
    case GenServer.call(__MODULE__, {:get, storage}, timeout_ms) do
      %{capped: true, limit: limit} when limit < max_concurrency -> nil
      learnt -> checked(learnt)
    end
  catch
    # The application does not run.
    :exit, _reason -> nil
  end

  @doc """
  Sends what a drain with this `max_concurrency` has learnt to this node and all connected visible nodes. Sends
  nothing if it learnt nothing.
  """
  @spec tell(String.t(), term(), pos_integer()) :: :ok
  def tell(storage, learnt, max_concurrency) do
    with %{limit: limit, knee: knee} = learnt <- checked(learnt) do
      learnt = if not knee and limit >= max_concurrency, do: Map.put(learnt, :capped, true), else: learnt

      for node <- [node() | Node.list()],
          do: :erlang.send({__MODULE__, node}, {__MODULE__, 1, storage, learnt}, [:nosuspend, :noconnect])
    end

    :ok
  end

  @doc "Checks data from another node: returns the valid measurement in it, else nil."
  @spec checked(term()) :: t() | nil
  def checked(%{limit: limit, latency_us: latency_us, knee: knee})
      when limit in 1..@most_at_a_time and latency_us in 1..@longest_us and is_boolean(knee),
      do: %{limit: limit, latency_us: latency_us, knee: knee}

  def checked(_other), do: nil

  @impl true
  def init([]), do: {:ok, %__MODULE__{}}

  @impl true
  def handle_call({:get, storage}, _from, state) do
    stores = fresh(state.stores)
    {:reply, with({learnt, _at_us} <- Map.get(stores, storage), do: learnt), %{state | stores: stores}}
  end

  @impl true
  def handle_info({__MODULE__, 1, storage, sent}, state) when byte_size(storage) == @digits do
    case checked(sent) do
      nil ->
        {:noreply, state}

      learnt ->
        # Releases before there was this key do not send it.
        learnt = if match?(%{capped: true}, sent), do: Map.put(learnt, :capped, true), else: learnt
        {:noreply, %{state | stores: state.stores |> fresh() |> put(storage, learnt) |> bounded()}}
    end
  end

  # From a node with another release.
  def handle_info({__MODULE__, _version, _storage, _learnt}, state), do: {:noreply, state}

  def handle_info(unexpected, state) do
    Log.unexpected(nil, unexpected)
    {:noreply, state}
  end

  defp put(stores, storage, learnt) do
    case stores do
      %{^storage => {%{limit: limit, latency_us: latency_us}, _at_us}}
      when is_map_key(learnt, :capped) and learnt.limit < limit and learnt.latency_us <= @same * latency_us ->
        stores

      _nothing_better ->
        Map.put(stores, storage, {learnt, Clock.now_us()})
    end
  end

  defp fresh(stores) do
    since_us = Clock.now_us() - @keep_us
    Map.filter(stores, fn {_storage, {_learnt, at_us}} -> at_us >= since_us end)
  end

  defp bounded(stores) when map_size(stores) <= @most, do: stores

  defp bounded(stores) do
    {oldest, _learnt} = Enum.min_by(stores, fn {_storage, {_learnt, at_us}} -> at_us end)
    Map.delete(stores, oldest)
  end
end
