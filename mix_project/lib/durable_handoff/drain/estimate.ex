defmodule DurableHandoff.Drain.Estimate do
  @moduledoc false
  # Estimates how long a drain takes. The aim is to be right within a factor of two.
  #
  # The store: a few reads, one after the other, give the latency of one request. A burst of parallel reads
  # gives the number of requests that the store serves per second. When that number is close to what latency
  # alone explains, the store counts as unlimited. A plan reads the states of servers;
  # `DurableHandoff.Drain.Look` says what a drain uses.
  #
  # The processors: the time to start a process on another node gives the part of a move that is not store
  # time (`DurableHandoff.Drain.Processors`).
  #
  # If an earlier drain on the same store has measured both, its figures are used.
  #
  # `make/5` simulates how the limiter raises the number of parallel moves
  # (`native/handoff_core/src/limiter.rs`): it starts from what is known of the store, else from three, goes on
  # with ten, adds a quarter and then a half each time, each step about two moves long, until the store, the
  # processors, the nodes, `max_concurrency` or `max_per_second` are the limit.
  #
  # A plan adds the time that servers need to store their state first, and assumes that half of them have
  # something to store.
  #
  # The estimate does not include: slow `terminate/2` or `init` callbacks, the load of other nodes that drain
  # at the same time, and, in a plan, how much slower writes are than reads, unless the backend knows that.

  alias DurableHandoff.Drain.{Learnt, Processors}
  alias DurableHandoff.{Host, Log, Options}

  # One read and three conditional writes, one after the other.
  @requests_of_a_move 4
  @writes_of_a_move 3
  # A store that writes more slowly than it reads also serves fewer writes at a time, by at most this factor.
  @fewer_writes 1.5
  # What a move costs the processors of all nodes, as a multiple of one process start on another node. The
  # first figure is for its store requests and counts only if the store itself is faster; the second is for
  # the rest (two processes, a remote call, registry events). Measured with stores that answer at once, on two
  # cores that all nodes share, idle and with ten times the load.
  @starts_of_requests 16
  @starts_of_the_rest 20
  # The same for a server that stores its state while it runs: the least, and the most when the store is no
  # limit.
  @starts_of_a_sync 2
  @most_starts_of_a_sync 6
  # One process start on two idle cores. Used when the nodes did not answer.
  @remote_us 12.0
  # Two nodes work on one move.
  @nodes 2
  # Marking the node, the snapshot, asking the other nodes.
  @start_us 50_000

  @singles 3
  @most_burst 48
  # One read for every four servers (their moves take sixteen requests), and at least eight reads.
  @burst_share 4
  @least_burst 8
  # With fewer parallel reads it cannot be seen whether requests queue in the store.
  @fewest 4
  # A plan measures two bursts and takes the faster one: one process that is delayed can double the time of a
  # burst.
  @bursts 2
  @limit_ms 2_000
  @no_key "__durable_handoff/estimate"
  # When the throughput is below this part of what latency alone would allow, requests queue in the store. The
  # bound is below one half because a busy machine alone can halve the throughput.
  @queueing 0.4

  @first_limit 3
  @steps [10 / 3, 1.25]
  @later_step 1.5

  # With a lower latency than this, the processors limit the pace of moves, not the store.
  @held_by_store_us 2_000
  # If the store served at least this part of a burst at a time, the drain starts with as many moves as the
  # burst had requests. Else it starts with the number that was served at a time.
  @served_at_once 0.5
  # The first moves of a drain take longer than later ones, by about this factor.
  @slack 1.5

  @typedoc """
  `round_trip_us`: median time of one request. `per_second`: requests per second that the store serves at
  most, `:infinity` if no limit was seen. `at_a_time`: of how many parallel requests how many were served at a
  time. `sync_us`: time per server that stored its state. `remote_us`: one process start on another node. From
  an earlier drain: `start`, the number of parallel moves to start with; `move_us`, the time of one move at
  that number; `every_us`, the time between the ends of two moves, if more parallel moves were no faster.
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

  @typedoc "`fit`: the number of servers that can move within `timeout_ms`."
  @type t :: %{round_trip_ms: float(), drain_ms: float(), fit: non_neg_integer()}

  @doc """
  Measures the store of `supervisor` by reading the states of the servers `keys`, and the processors of the
  nodes `targets`, for a drain with this `max_concurrency`. Returns nil when the store does not answer. Takes about
  ten round trips, at most eleven seconds: three reads and two bursts of two seconds each, and the processors.
  """
  @spec measure(Host.name(), [term()], [node()], pos_integer()) :: nil | measured()
  def measure(supervisor, keys, targets, max_concurrency) do
    storage = Host.storage(supervisor)

    reads =
      for key <- Enum.take(keys, @singles + burst_size(length(keys))),
          do: fn -> match?({:ok, _info}, Host.info(supervisor, key)) end

    with %{} = measured <- time(reads, @bursts) do
      measured
      |> with_writes(Host.write_us(storage))
      |> Map.put(:remote_us, Processors.measure(targets))
      |> with_learnt(storage |> Host.StorageIdentity.of() |> Learnt.get(max_concurrency))
    end
  end

  @doc """
  Converts what reads have shown to the mix of reads and writes of a move. A write takes `write_us`, or as
  long as a read if that is nil.
  """
  @spec with_writes(measured(), nil | pos_integer()) :: measured()
  def with_writes(%{round_trip_us: read_us} = measured, write_us) when is_integer(write_us) and write_us > read_us do
    slower = write_us / read_us
    per_second = measured.per_second

    # Writes also wait for the disk: a directory serves two thirds as many writes at a time as reads.
    served =
      if per_second == :infinity, do: :infinity, else: per_second / of_a_move(slower * min(slower, @fewer_writes))

    %{measured | round_trip_us: round(of_a_move(slower) * read_us), per_second: served}
  end

  def with_writes(measured, _unknown), do: measured

  # The mean cost of a request of a move, in reads.
  defp of_a_move(write), do: (@requests_of_a_move - @writes_of_a_move + @writes_of_a_move * write) / @requests_of_a_move

  @doc """
  Measures the store for a drain of `moves` servers. Reads an object that does not exist, because reads of the
  servers' own objects would disturb their moves.
  """
  @spec probe(Host.name(), pos_integer()) :: nil | measured()
  def probe(supervisor, moves) do
    storage = Host.storage(supervisor)
    read = fn -> match?({:error, :not_found}, Host.stored(storage, @no_key)) end
    read |> List.duplicate(@singles + burst_size(moves)) |> time(1)
  end

  @doc """
  The same from the writes of `DurableHandoff.Drain.Storing.written/1`, of which at most `at_a_time` ran in
  parallel.
  """
  @spec of_writes(map(), pos_integer()) :: measured()
  def of_writes(%{written: written, asked: asked, span_us: span_us, shortest_us: shortest_us}, at_a_time),
    do: shortest_us |> measured(written, span_us, min(written, at_a_time)) |> Map.put(:sync_us, span_us / asked)

  @doc """
  Adds the speed of the processors (`DurableHandoff.Drain.Processors`). If the processors alone explain how
  long the writes took, the store counts as unlimited.
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

  @doc """
  Adds what an earlier drain has learnt, if there is something. It takes precedence over what was measured.
  """
  @spec with_learnt(measured(), nil | Learnt.t()) :: measured()
  def with_learnt(measured, nil), do: measured

  def with_learnt(measured, %{limit: limit, latency_us: latency_us, knee: knee}) do
    every_us = if knee, do: latency_us / limit
    Map.merge(measured, %{start: limit, move_us: latency_us, every_us: every_us})
  end

  @doc """
  What a drain can start with, in the form in which an earlier drain would have learnt it. nil when the
  processors, not the store, limit the pace of moves.
  """
  @spec start(measured()) :: Learnt.t() | nil
  def start(%{at_a_time: {served, made}, round_trip_us: round_trip_us} = measured)
      when round_trip_us >= @held_by_store_us do
    latency_us = round(@slack * move_us(measured))

    limit = if served >= @served_at_once * made, do: made, else: max(round(served), 1)
    # `knee: false`: on a busy machine this limit is measured too low, so the drain tries a higher one at
    # once.
    %{limit: limit, latency_us: latency_us, knee: false}
  end

  def start(_other), do: nil

  # The time of one move when none waits for another.
  defp move_us(%{move_us: move_us}), do: move_us

  defp move_us(%{round_trip_us: round_trip_us} = measured),
    do: @requests_of_a_move * round_trip_us + @nodes * (@starts_of_requests + @starts_of_the_rest) * remote_us(measured)

  # The time between the ends of two moves, with so many parallel moves that more would not be faster.
  defp every_us(%{every_us: every_us}) when every_us != nil, do: every_us

  defp every_us(%{per_second: per_second} = measured) do
    remote_us = remote_us(measured)
    served_us = if per_second == :infinity, do: 0.0, else: @requests_of_a_move * 1.0e6 / per_second
    max(served_us, @starts_of_requests * remote_us) + @starts_of_the_rest * remote_us
  end

  defp remote_us(measured), do: Map.get(measured, :remote_us) || @remote_us

  defp burst_size(moves), do: moves |> div(@burst_share) |> max(min(moves, @least_burst)) |> min(@most_burst)

  # Each of `reads` returns whether the store answered. The fastest of the `bursts` counts.
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

  # The time of all `reads` together, and how many were answered.
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
  Estimates how long `moves` moves to `targets` nodes take, including the time in which `states` servers store
  their state before that, `at_a_time` in parallel.

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
    climb = %{move_us: move_us(measured), ceiling: ceiling, most: min(1 / every_us(measured), most(options))}
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

  # Moves per microsecond. In Erlang's term order :infinity is greater than every number.
  defp most(%{max_per_second: nil}), do: :infinity
  defp most(%{max_per_second: per_second}), do: per_second / 1.0e6

  # The time at which `moves` more moves are done if they begin at `at_us`.
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

  # The number of `moves` that are done within `left_us`.
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
  Logs how long `moves` moves to `targets` nodes take: as a warning when that is more than `timeout_ms`, not
  at all when nothing was measured.
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

  @doc "The estimate as a sentence, with how many servers fit in `timeout_ms` if not all do."
  @spec sentence(t(), non_neg_integer(), pos_integer()) :: String.t()
  def sentence(estimate, moves, timeout_ms) do
    about =
      "about #{Log.seconds(estimate.drain_ms)} (#{Float.round(estimate.round_trip_ms, 1)} ms a round trip to the store)"

    if estimate.drain_ms > timeout_ms,
      do: about <> ", longer than timeout_ms #{timeout_ms}: about #{estimate.fit} of #{moves} fit",
      else: about
  end
end
