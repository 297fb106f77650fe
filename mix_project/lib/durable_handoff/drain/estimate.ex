defmodule DurableHandoff.Drain.Estimate do
  @moduledoc false
  # About how long a drain takes. Meant to be right within a factor of two.
  #
  # Of the store, a few reads one after the other give the latency of a request; then more at once the number of
  # requests that the store serves in a second. Where that is not much less than latency alone explains, no limit of
  # the store is in sight. A plan reads states of servers. What a drain goes by: `DurableHandoff.Drain.Look`.
  #
  # Of the processors, processes that are started on other nodes give the time that a move takes beside the store
  # (`DurableHandoff.Drain.Processors`).
  #
  # An earlier drain on the store has measured both.
  #
  # `make/5` lets a drain climb as the limiter does (`native/handoff_core/src/limiter.rs`): from what is known
  # of the store, else from eight attempts at a time, by a quarter twice, then by half, each step about two moves long,
  # until the store, the processors, the nodes or `max_concurrency` hold it.
  #
  # A plan adds the time in which servers store their state first, as if half of them had something to store.
  #
  # What it cannot know: servers whose `terminate/2` or `init` is slow, what other nodes that drain at the same time
  # ask of the store, and, in a plan, how much slower writes are than reads, unless the backend knows that.

  alias DurableHandoff.Drain.{Learnt, Processors}
  alias DurableHandoff.{Host, Log, Options}

  # One read and three conditional writes, one after the other.
  @requests_of_a_move 4
  @writes_of_a_move 3
  # So many times fewer writes at a time than reads, where a write takes that much longer or more.
  @fewer_writes 1.5
  # What a move costs the processors of all nodes, in starts of a process on another node: its requests, where they do
  # not show in the store's own limit, and the rest (two processes, a remote call, registry events). From drains on
  # stores that answer at once, on two cores that all nodes share, quiet and ten times as busy.
  @starts_of_requests 16
  @starts_of_the_rest 20
  # The same for a server that stores its state while it runs: at least, and at most where no store holds it up.
  @starts_of_a_sync 2
  @most_starts_of_a_sync 6
  # One start on two quiet cores. For nodes that did not answer.
  @remote_us 12.0
  # Two nodes work on one move.
  @nodes 2
  # Marking the node, the snapshot, asking the other nodes.
  @start_us 50_000

  @singles 3
  @most_burst 48
  # One read for each four servers, which cost the drain sixteen requests. At least eight reads.
  @burst_share 4
  @least_burst 8
  # Fewer reads do not show whether requests queue.
  @fewest 4
  # A plan has time for a second look: a process that is held for a moment makes a burst twice as long.
  @bursts 2
  @limit_ms 2_000
  @no_key "__durable_handoff/estimate"
  # Below this part of what latency alone explains, requests wait for one another in the store. A busy machine
  # halves it.
  @queueing 0.4

  @first_limit 8
  @steps [1.25, 1.25]
  @later_step 1.5

  # A faster store does not hold up moves: the processors do.
  @held_by_store_us 2_000
  # A drain starts at once with as many moves as requests were served at a time, where that is this part of those
  # made, or more.
  @served_at_once 0.5
  # First moves take longer than later ones.
  @slack 1.5

  @typedoc """
  `round_trip_us`: one request, the median. `per_second`: what the store serves at most, `:infinity` where no limit is
  in sight. `at_a_time`: requests that it served at a time, of so many made. `remote_us`: one start on another node.
  From an earlier drain: `start`, moves at a time that a drain starts with, `move_us`, how long one takes then, and
  `every_us`, the time from one to the next, where more at a time gained nothing.
  """
  @type measured :: %{
          required(:round_trip_us) => pos_integer(),
          required(:per_second) => :infinity | float(),
          optional(:at_a_time) => {float(), pos_integer()},
          optional(:sync_us) => float(),
          optional(:remote_us) => nil | float(),
          optional(:start) => pos_integer(),
          optional(:move_us) => pos_integer(),
          optional(:every_us) => nil | float()
        }

  @typedoc "`fit`: how many servers move within `timeout_ms`."
  @type t :: %{round_trip_ms: float(), drain_ms: float(), fit: non_neg_integer()}

  @doc """
  Measures the store of `supervisor` by reading the states of the servers `keys`, which are those to move, and the
  processors of `targets`. nil when the store does not answer. Takes about ten round trips, six seconds at most.
  """
  @spec measure(Host.name(), [term()], [node()]) :: nil | measured()
  def measure(supervisor, keys, targets) do
    storage = Host.storage(supervisor)

    reads =
      for key <- Enum.take(keys, @singles + burst_size(length(keys))),
          do: fn -> match?({:ok, _info}, Host.info(supervisor, key)) end

    with %{} = measured <- time(reads, @bursts) do
      measured
      |> with_writes(Host.write_us(storage))
      |> Map.put(:remote_us, Processors.measure(targets))
      |> with_learnt(storage |> Host.StorageIdentity.of() |> Learnt.get())
    end
  end

  @doc "What reads have shown, for the requests of a move, where a write takes `write_us`. nil: as long as a read."
  @spec with_writes(measured(), nil | pos_integer()) :: measured()
  def with_writes(%{round_trip_us: read_us} = measured, write_us) when is_integer(write_us) and write_us > read_us do
    slower = write_us / read_us
    per_second = measured.per_second

    # What writes to the store waits for the disk, too: on a directory, two thirds as many at a time as reads.
    served =
      if per_second == :infinity, do: :infinity, else: per_second / of_a_move(slower * min(slower, @fewer_writes))

    %{measured | round_trip_us: round(of_a_move(slower) * read_us), per_second: served}
  end

  def with_writes(measured, _unknown), do: measured

  # A request of a move, the mean, in reads.
  defp of_a_move(write), do: (@requests_of_a_move - @writes_of_a_move + @writes_of_a_move * write) / @requests_of_a_move

  @doc """
  The same for a drain of `moves` servers. Reads an object that does not exist: reads of its servers would disturb
  their moves.
  """
  @spec probe(Host.name(), pos_integer()) :: nil | measured()
  def probe(supervisor, moves) do
    storage = Host.storage(supervisor)
    read = fn -> match?({:error, :not_found}, Host.stored(storage, @no_key)) end
    read |> List.duplicate(@singles + burst_size(moves)) |> time(1)
  end

  @doc "The same from writes (`DurableHandoff.Drain.Storing.written/1`), so many at a time."
  @spec of_writes(map(), pos_integer()) :: measured()
  def of_writes(%{written: written, asked: asked, span_us: span_us, shortest_us: shortest_us}, at_a_time),
    do: shortest_us |> measured(written, span_us, min(written, at_a_time)) |> Map.put(:sync_us, span_us / asked)

  @doc """
  What was measured, with the processors (`DurableHandoff.Drain.Processors`). Writes that took no longer than those
  explain show no limit of the store.
  """
  @spec with_processors(measured(), nil | float()) :: measured()
  def with_processors(measured, remote_us) do
    measured = Map.put(measured, :remote_us, remote_us)
    explained_us = @most_starts_of_a_sync * remote_us(measured)
    if Map.get(measured, :sync_us, :infinity) <= explained_us, do: %{measured | per_second: :infinity}, else: measured
  end

  @doc "The same from an earlier drain."
  @spec of_learnt(Learnt.t()) :: measured()
  def of_learnt(%{latency_us: latency_us} = learnt) do
    with_learnt(%{round_trip_us: max(div(latency_us, @requests_of_a_move), 1), per_second: :infinity}, learnt)
  end

  @doc "What was measured, and above it what an earlier drain has learnt, if one has."
  @spec with_learnt(measured(), nil | Learnt.t()) :: measured()
  def with_learnt(measured, nil), do: measured

  def with_learnt(measured, %{limit: limit, latency_us: latency_us, knee: knee}) do
    every_us = if knee, do: latency_us / limit
    Map.merge(measured, %{start: limit, move_us: latency_us, every_us: every_us})
  end

  @doc """
  What a drain may start with, as if an earlier one had learnt it; nil where the processors hold moves up rather than
  the store.
  """
  @spec start(measured()) :: Learnt.t() | nil
  def start(%{at_a_time: {served, made}, round_trip_us: round_trip_us} = measured)
      when round_trip_us >= @held_by_store_us do
    latency_us = round(@slack * move_us(measured))

    limit = if served >= @served_at_once * made, do: made, else: max(round(served), 1)
    # Not a knee: a busy machine makes it look lower than it is, so the drain looks up at once.
    %{limit: limit, latency_us: latency_us, knee: false}
  end

  def start(_other), do: nil

  # One move, where nothing waits for another.
  defp move_us(%{move_us: move_us}), do: move_us

  defp move_us(%{round_trip_us: round_trip_us} = measured),
    do: @requests_of_a_move * round_trip_us + @nodes * (@starts_of_requests + @starts_of_the_rest) * remote_us(measured)

  # From the end of one move to that of the next, with as many at a time as gain anything.
  defp every_us(%{every_us: every_us}) when every_us != nil, do: every_us

  defp every_us(%{per_second: per_second} = measured) do
    remote_us = remote_us(measured)
    served_us = if per_second == :infinity, do: 0.0, else: @requests_of_a_move * 1.0e6 / per_second
    max(served_us, @starts_of_requests * remote_us) + @starts_of_the_rest * remote_us
  end

  defp remote_us(measured), do: Map.get(measured, :remote_us) || @remote_us

  defp burst_size(moves), do: moves |> div(@burst_share) |> max(min(moves, @least_burst)) |> min(@most_burst)

  # Each of `reads` says whether the store answered. Of so many `bursts` the fastest counts.
  defp time(reads, bursts) do
    {singles, rest} = Enum.split(reads, @singles)

    case for(read <- singles, {time_us, 1} <- [timed([read], 1)], do: time_us) |> Enum.sort() do
      [] -> nil
      times -> burst(rest, Enum.at(times, div(length(times), 2)), bursts)
    end
  end

  defp burst(reads, round_trip_us, _bursts) when length(reads) < @fewest,
    do: %{round_trip_us: round_trip_us, per_second: :infinity}

  defp burst(reads, round_trip_us, bursts) do
    bursts = for _ <- 1..bursts, do: timed(reads, length(reads))
    {time_us, answered} = Enum.max_by(bursts, fn {time_us, answered} -> answered / time_us end)
    measured(round_trip_us, answered, time_us, length(reads))
  end

  defp measured(round_trip_us, answered, time_us, at_a_time) do
    per_second = answered * 1.0e6 / time_us
    limited? = answered > 0 and per_second < @queueing * at_a_time * 1.0e6 / round_trip_us

    %{
      round_trip_us: round_trip_us,
      per_second: if(limited?, do: per_second, else: :infinity),
      at_a_time: {per_second * round_trip_us / 1.0e6, at_a_time}
    }
  end

  # How long they take, and how many were answered.
  defp timed(reads, at_a_time) do
    {time_us, answered} =
      :timer.tc(fn ->
        reads
        |> Task.async_stream(& &1.(),
          max_concurrency: at_a_time,
          ordered: false,
          timeout: @limit_ms,
          on_timeout: :kill_task
        )
        |> Enum.count(&match?({:ok, true}, &1))
      end)

    {max(time_us, 1), answered}
  end

  @doc """
  About how long `moves` moves to `targets` nodes take, after `states` servers have stored their state, `at_a_time`
  of them at a time.

      iex> options = DurableHandoff.Options.new!(timeout_ms: 10_000)
      iex> slow = %{round_trip_us: 10_000, per_second: 100.0}
      iex> %{drain_ms: drain_ms, fit: fit} = DurableHandoff.Drain.Estimate.make(slow, 1_000, 3, options)
      iex> {round(drain_ms / 1_000), fit in 200..300}
      {40, true}
  """
  @spec make(measured(), non_neg_integer(), pos_integer(), Options.t(), {non_neg_integer(), pos_integer()}) :: t()
  def make(measured, moves, targets, %Options{} = options, {states, at_a_time} \\ {0, 1}) do
    ceiling = ceiling(options, targets)
    {limit, steps} = if options.concurrency == :fixed, do: {ceiling, []}, else: first(measured, ceiling)
    climb = %{move_us: move_us(measured), ceiling: ceiling, most: 1 / every_us(measured)}
    start_us = @start_us + 2 * measured.round_trip_us + storing_us(measured, states, at_a_time)

    %{
      round_trip_ms: measured.round_trip_us / 1_000,
      drain_ms: climb(climb, limit, steps, start_us, moves) / 1_000,
      fit: fit(climb, limit, steps, options.timeout_ms * 1_000 - start_us, moves)
    }
  end

  defp first(%{start: limit}, ceiling), do: {min(limit, ceiling), []}

  defp first(measured, ceiling) do
    case start(measured) do
      nil -> {min(@first_limit, ceiling), @steps}
      learnt -> {min(learnt.limit, ceiling), []}
    end
  end

  defp storing_us(%{per_second: per_second, round_trip_us: round_trip_us} = measured, states, at_a_time) do
    served_us = if per_second == :infinity, do: 0.0, else: states * 1.0e6 / per_second
    max(served_us, states * (round_trip_us / at_a_time + @starts_of_a_sync * remote_us(measured)))
  end

  defp ceiling(%{max_concurrency_per_target: nil} = options, _targets), do: options.max_concurrency
  defp ceiling(options, targets), do: min(options.max_concurrency, targets * options.max_concurrency_per_target)

  # When `moves` more moves are done, which begin at `at_us`.
  defp climb(climb, limit, steps, at_us, moves) do
    rate = min(limit / climb.move_us, climb.most)
    done = rate * 2 * climb.move_us

    if held?(climb, limit, rate) or done >= moves do
      at_us + max(moves / rate, if(moves > 0, do: climb.move_us, else: 0))
    else
      {step, steps} = next(steps)
      climb(climb, min(limit * step, climb.ceiling), steps, at_us + 2 * climb.move_us, moves - done)
    end
  end

  # How many of `moves` are done within `left_us`.
  defp fit(climb, limit, steps, left_us, moves) do
    rate = min(limit / climb.move_us, climb.most)
    done = rate * 2 * climb.move_us

    cond do
      left_us <= 0 or moves <= 0 ->
        0

      held?(climb, limit, rate) or 2 * climb.move_us >= left_us ->
        min(moves, floor(rate * left_us))

      true ->
        {step, steps} = next(steps)
        now = min(moves, floor(done))
        now + fit(climb, min(limit * step, climb.ceiling), steps, left_us - 2 * climb.move_us, moves - now)
    end
  end

  defp held?(climb, limit, rate), do: limit >= climb.ceiling or rate >= climb.most

  defp next([step | steps]), do: {step, steps}
  defp next([]), do: {@later_step, []}

  @doc """
  Logs how long `moves` moves to `targets` nodes take. A warning when that is more than `timeout_ms`. Nothing, where
  nothing was measured.
  """
  @spec announce(Host.name(), non_neg_integer(), non_neg_integer(), Options.t(), nil | measured()) :: :ok
  def announce(_supervisor, moves, targets, _options, measured) when moves == 0 or targets == 0 or measured == nil,
    do: :ok

  def announce(supervisor, moves, targets, options, measured),
    do: log(supervisor, measured, moves, targets, options)

  defp log(supervisor, measured, moves, targets, options) do
    estimate = make(measured, moves, targets, options)

    level = if estimate.drain_ms > options.timeout_ms, do: :warning, else: :info
    text = "the drain takes #{sentence(estimate, moves, options.timeout_ms)}"
    Log.write(level, :estimate, supervisor, text, estimate)
  end

  @doc "One sentence; with what does not fit in `timeout_ms`."
  @spec sentence(t(), non_neg_integer(), pos_integer()) :: String.t()
  def sentence(estimate, moves, timeout_ms) do
    about =
      "about #{Log.seconds(estimate.drain_ms)} (#{Float.round(estimate.round_trip_ms, 1)} ms a round trip to the store)"

    if estimate.drain_ms > timeout_ms,
      do: about <> ", longer than timeout_ms #{timeout_ms}: about #{estimate.fit} of #{moves} fit",
      else: about
  end
end
