defmodule DurableHandoff.Drain.Look do
  @moduledoc false
  # What a drain knows of its store before it stops the first server: with how many parallel moves to start,
  # and how long the drain will take. The first available source counts:
  #
  #   1. what an earlier drain has learnt (`DurableHandoff.Drain.Learnt`);
  #   2. how fast servers have just stored their states (`DurableHandoff.Drain.Storing.written/1`);
  #   3. for 64 servers or more, reads of an object that does not exist. No server is down meanwhile, while
  #      finding the limit with moves would prolong the gap of each moved server.
  #
  # Without an earlier drain, it also measures the processors for 500 servers or more
  # (`DurableHandoff.Drain.Processors`). The drain does nothing else during these five milliseconds, because its
  # own work would distort the measurement.
  #
  # Guarantee: the drain waits at most one second, and at most a twentieth of its time. A later result is only
  # logged; the drain gets it as `{DurableHandoff.Drain.Look, measured}`.

  alias DurableHandoff.Drain.{Estimate, Learnt, Processors, Storing}
  alias DurableHandoff.Host

  # A smaller drain would be over before its store is measured.
  @worth_reads 64
  # In a smaller drain the time of this measurement would be noticeable.
  @worth_starts 500
  @longest_wait_ms 1_000
  @share_of_the_drain 20
  # Limits how long the measurement can delay a short drain on a busy machine.
  @processors_ms 30

  @typedoc """
  `servers`: how many are to move, at most `max_concurrency` at a time; `targets`: the names of the nodes that could
  take them.
  """
  @type drain :: %{
          supervisor: Host.name(),
          storage: String.t(),
          storing: Storing.t(),
          servers: non_neg_integer(),
          max_concurrency: pos_integer(),
          targets: [String.t()]
        }
  @type found :: {Learnt.t() | nil, Estimate.measured() | nil}

  @doc """
  Finds out what is known for `drain`, which has `left_ms` left. Not to be called while states are being
  stored.
  """
  @spec take(drain(), left_ms :: integer()) :: found()
  def take(%{servers: servers} = drain, left_ms) do
    learnt = Learnt.get(drain.storage, drain.max_concurrency)
    known = known(drain.supervisor, learnt, Storing.written(drain.storing))
    least = if known, do: @worth_starts, else: @worth_reads
    if learnt != nil or servers < least, do: found(learnt, known), else: look(drain, known, left_ms)
  end

  defp look(drain, known, left_ms) do
    caller = self()
    :proc_lib.spawn(fn -> send(caller, {__MODULE__, measure(drain, known)}) end)

    receive do
      {__MODULE__, measured} -> found(nil, measured)
    after
      left_ms |> div(@share_of_the_drain) |> min(@longest_wait_ms) |> max(0) -> found(nil, nil)
    end
  end

  # The processors first: if the store is slow, moves begin before it has answered and would distort this
  # measurement.
  defp measure(%{servers: servers} = drain, known) do
    remote_us = if servers >= @worth_starts, do: Processors.measure(Host.connected(drain.targets), @processors_ms)

    with %{} = measured <- known || Estimate.probe(drain.supervisor, servers),
         do: Estimate.with_processors(measured, remote_us)
  end

  defp known(_supervisor, nil, nil), do: nil
  defp known(_supervisor, learnt, nil), do: Estimate.of_learnt(learnt)

  defp known(supervisor, learnt, written) do
    written
    |> Estimate.of_writes(Host.graceful_concurrency(supervisor))
    |> Estimate.with_processors(nil)
    |> Estimate.with_learnt(learnt)
  end

  defp found(nil, nil), do: {nil, nil}
  defp found(nil, measured), do: {Estimate.start(measured), measured}
  defp found(learnt, measured), do: {learnt, measured}
end
