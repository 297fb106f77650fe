defmodule DurableHandoff.Drain.Estimate do
  @moduledoc false
  # About how long a drain takes, from a few reads of the store. Meant to be right within a factor of two.
  #
  # A few reads one after the other give the latency of a request; then more at once the number of requests that
  # the store serves in a second. Where that is not much less than latency alone explains, no limit of the store is in
  # sight. A plan reads states of servers. A drain knows how fast its servers have stored their states; where few had
  # something to store, it reads an object that does not exist.
  #
  # `make/4` lets a drain climb as the limiter does (`native/handoff_core/src/limiter.rs`): from eight attempts
  # at a time, by a quarter twice, then by half, each step about two moves long, until the store, the nodes or
  # `max_concurrency` hold it.
  #
  # A plan adds the time in which all servers store their state first, as if each had something to store.
  #
  # What it cannot know: servers whose `terminate/2` or `init` is slow, what other nodes that drain at the same time
  # ask of the store, and, in a plan, writes that are much slower than reads.

  alias DurableHandoff.{Host, Log, Options}

  # One read and three conditional writes, one after the other.
  @requests_of_a_move 4
  # What a move costs the BEAM nodes themselves: two processes, a remote call, registry events. Measured with
  # stores that answer at once, on two cores that source and targets share.
  @move_us 2_000
  # The same for a server that stores its state while it runs.
  @sync_us 100
  # Marking the node, the snapshot, asking the other nodes.
  @start_us 50_000

  @singles 3
  @most_burst 48
  # One read for each four servers, which cost the drain sixteen requests. At least eight reads.
  @burst_share 4
  @least_burst 8
  # A smaller drain is over before its estimate is worth the reads.
  @worth_it 64
  # Fewer reads do not show whether requests queue.
  @fewest 4
  @limit_ms 2_000
  @no_key "__durable_handoff/estimate"
  # Below this part of what latency alone explains, requests wait for one another in the store. A busy machine
  # halves it.
  @queueing 0.4

  @first_limit 8
  @steps [1.25, 1.25]
  @later_step 1.5

  @typedoc "`round_trip_us`: one request, the median. `per_second`: what the store serves at most, `:infinity` where no limit is in sight."
  @type measured :: %{round_trip_us: pos_integer(), per_second: :infinity | float()}

  @typedoc "`fit`: how many servers move within `timeout_ms`."
  @type t :: %{round_trip_ms: float(), drain_ms: float(), fit: non_neg_integer()}

  @doc """
  Measures the store of `supervisor` by reading the states of the servers `keys`, which are those to move. nil
  when the store does not answer. Takes about ten round trips, four seconds at most.
  """
  @spec measure(Host.name(), [term()]) :: nil | measured()
  def measure(supervisor, keys) do
    keys
    |> Enum.take(@singles + burst_size(length(keys)))
    |> Enum.map(fn key -> fn -> match?({:ok, _info}, Host.info(supervisor, key)) end end)
    |> time()
  end

  # A drain reads an object that does not exist, because reads of its servers would disturb their moves.
  defp probe(supervisor, moves) do
    storage = Host.storage(supervisor)
    read = fn -> match?({:error, :not_found}, Host.stored(storage, @no_key)) end
    read |> List.duplicate(@singles + burst_size(moves)) |> time()
  end

  defp burst_size(moves), do: moves |> div(@burst_share) |> max(min(moves, @least_burst)) |> min(@most_burst)

  # Each of `reads` says whether the store answered.
  defp time(reads) do
    {singles, rest} = Enum.split(reads, @singles)

    case for(read <- singles, {time_us, 1} <- [timed([read], 1)], do: time_us) |> Enum.sort() do
      [] -> nil
      times -> burst(rest, Enum.at(times, div(length(times), 2)))
    end
  end

  defp burst(reads, round_trip_us) when length(reads) < @fewest,
    do: %{round_trip_us: round_trip_us, per_second: :infinity}

  defp burst(reads, round_trip_us) do
    {time_us, answered} = timed(reads, length(reads))
    measured(round_trip_us, answered, time_us, length(reads))
  end

  defp measured(round_trip_us, answered, time_us, at_a_time) do
    per_second = answered * 1.0e6 / time_us
    limited? = answered > 0 and per_second < @queueing * at_a_time * 1.0e6 / round_trip_us
    %{round_trip_us: round_trip_us, per_second: if(limited?, do: per_second, else: :infinity)}
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
    move_us = @requests_of_a_move * measured.round_trip_us + @move_us
    ceiling = ceiling(options, targets)
    {limit, steps} = if options.concurrency == :fixed, do: {ceiling, []}, else: {min(@first_limit, ceiling), @steps}
    climb = %{move_us: move_us, ceiling: ceiling, most: most_per_us(measured.per_second)}
    start_us = @start_us + 2 * measured.round_trip_us + storing_us(measured, states, at_a_time)

    %{
      round_trip_ms: measured.round_trip_us / 1_000,
      drain_ms: climb(climb, limit, steps, start_us, moves) / 1_000,
      fit: fit(climb, limit, steps, options.timeout_ms * 1_000 - start_us, moves)
    }
  end

  defp storing_us(%{per_second: per_second, round_trip_us: round_trip_us}, states, at_a_time) do
    served_us = if per_second == :infinity, do: 0.0, else: states * 1.0e6 / per_second
    max(served_us, states * (round_trip_us / at_a_time + @sync_us))
  end

  defp ceiling(%{max_concurrency_per_target: nil} = options, _targets), do: options.max_concurrency
  defp ceiling(options, targets), do: min(options.max_concurrency, targets * options.max_concurrency_per_target)

  # Moves in a microsecond, whatever the concurrency.
  defp most_per_us(:infinity), do: 1 / @move_us
  defp most_per_us(per_second), do: min(per_second / @requests_of_a_move / 1.0e6, 1 / @move_us)

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
  Logs how long `moves` moves to `targets` nodes take, for a drain of 64 servers or more: from what was
  `written` (`DurableHandoff.Drain.Storing.written/1`), else from reads, in a process of its own. A warning when
  that is more than `timeout_ms`. Nothing, when the calling drain has ended by then.
  """
  @spec announce(Host.name(), non_neg_integer(), non_neg_integer(), Options.t(), nil | map()) :: :ok
  def announce(_supervisor, moves, targets, _options, _written) when moves < @worth_it or targets == 0, do: :ok

  def announce(supervisor, moves, targets, options, %{} = written) do
    at_a_time = min(written.written, Host.graceful_concurrency(supervisor))
    log(supervisor, measured(written.shortest_us, written.written, written.span_us, at_a_time), moves, targets, options)
  end

  def announce(supervisor, moves, targets, options, nil) do
    drain = self()

    :proc_lib.spawn(fn ->
      measured = probe(supervisor, moves)
      if measured && Process.alive?(drain), do: log(supervisor, measured, moves, targets, options)
    end)

    :ok
  end

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
      "about #{seconds(estimate.drain_ms)} (#{Float.round(estimate.round_trip_ms, 1)} ms a round trip to the store)"

    if estimate.drain_ms > timeout_ms,
      do: about <> ", longer than timeout_ms #{timeout_ms}: about #{estimate.fit} of #{moves} fit",
      else: about
  end

  defp seconds(ms), do: "#{:erlang.float_to_binary(ms / 1_000, decimals: 1)} s"
end
