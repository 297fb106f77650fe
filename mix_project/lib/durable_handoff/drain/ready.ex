defmodule DurableHandoff.Drain.Ready do
  @moduledoc false
  # What a drain does before its first move: it marks this node, waits until servers have stored their state,
  # and takes its snapshot.
  #
  # Guarantees:
  #
  #   * Nothing is moved before every server that runs here was asked to store its state.
  #   * It ends when the engine has to be done (`DurableHandoff.Deadline`), and at once when the drain is
  #     cancelled or a process that the drain watches is gone. All messages for the drain stay in the mailbox.
  #
  # It runs in the drain's process, and takes and returns the drain's state.

  alias DurableHandoff.{Clock, Cordon, Deadline, Host, Log}
  alias DurableHandoff.Drain.{Peers, Progress, Snapshot, Storing}
  alias DurableHandoff.Host.Sync

  @progress_ms 1_000
  # The maximum age of a snapshot that was taken while states were stored.
  @oldest_snapshot_us 500_000

  @typedoc "The state of a `DurableHandoff.Drain`."
  @type drain :: map()

  @doc """
  Marks the node and waits until servers have stored their state. Nothing reads the store before. A move and a
  rebalance do neither: each of their servers stores its state only in its own attempt.
  """
  @spec await(drain()) :: drain()
  def await(%{why: why, storing: storing, deadline: deadline} = drain) when why in [:shutdown, :request] do
    drain = %{drain | storing_monitor: Storing.join(storing, Deadline.store_us(deadline))}
    since_ms = mark(drain)
    await_stored(drain, since_ms)
  end

  def await(drain), do: %{drain | storing: Storing.none(), stays?: true}

  @doc """
  The snapshot: one taken while the last servers stored their states, if it is not too old and has all servers.
  Servers that did not answer come last, because their moves would keep the others waiting.
  """
  @spec snapshot(drain()) :: Snapshot.t()
  def snapshot(drain), do: drain |> early_or_new() |> Snapshot.put_last(drain.unanswered)

  defp early_or_new(%{early: {snapshot, taken_us}} = drain),
    do: if(Clock.now_us() - taken_us <= @oldest_snapshot_us, do: snapshot, else: take(drain))

  defp early_or_new(drain), do: take(drain)

  @doc """
  Logs what the drain is about to do. A move, and a rebalance with nothing to do, are logged only at their end.
  """
  @spec announce(drain(), Snapshot.t(), non_neg_integer()) :: :ok
  def announce(%{why: why}, _snapshot, _others) when why not in [:shutdown, :request], do: :ok

  def announce(%{supervisor: supervisor, options: options} = drain, snapshot, others) do
    {servers, excluded} = {Snapshot.size(snapshot), length(snapshot.excluded)}
    left_ms = Deadline.left_ms(drain.deadline, Clock.now_us())
    text = Progress.opening(servers, excluded, others, options, left_ms)
    Log.info(:drain_started, supervisor, text, servers: servers, excluded: excluded, targets: others)
    out_of_reach = Peers.out_of_reach(snapshot.view)

    if text = Peers.advice(out_of_reach),
      do: Log.warning(:nodes_out_of_reach, supervisor, text, nodes: out_of_reach),
      else: :ok
  end

  @doc """
  Logs the nodes on which the supervisor has another store. These may be different addresses of the same
  store.
  """
  @spec warn_of_another_store(Host.name(), [String.t()]) :: :ok
  def warn_of_another_store(_supervisor, []), do: :ok

  def warn_of_another_store(supervisor, nodes) do
    text =
      "another store is configured on #{Log.names(nodes)}: unless it is the same one, no server that is moved there starts; " <>
        "compare backend, bucket, path and endpoint"

    Log.warning(:another_store, supervisor, text, nodes: nodes)
  end

  defp take(drain), do: Snapshot.take(drain.supervisor, drain.options, drain.deadline, drain.why)

  # Without the mark other nodes may still send servers here. The drain still moves what it can.
  # Returns from when on a heartbeat of this node shows that the store accepts writes: a shutdown's mark writes one.
  defp mark(%{why: :request} = drain) do
    since_ms = recently_ms()
    warn_unmarked(drain, Cordon.cordon(drain.supervisor, Deadline.mark_ms(drain.deadline)))
    since_ms
  end

  # Only a shutdown's mark is final. After SIGTERM it is set: setting it again would delay the first move by one more
  # write of the heartbeat.
  defp mark(%{why: :shutdown, supervisor: supervisor} = drain) do
    if Host.Mark.mark(supervisor) == :final do
      recently_ms()
    else
      since_ms = System.system_time(:millisecond)
      warn_unmarked(drain, Host.Mark.stop(supervisor, Deadline.mark_ms(drain.deadline)))
      since_ms
    end
  end

  defp recently_ms, do: System.system_time(:millisecond) - Host.max_heartbeat_age_ms()

  defp warn_unmarked(drain, {:error, reason}) do
    text = "could not mark this node as draining, the drain goes on: #{inspect(reason, limit: 10)}"
    Log.warning(:mark_failed, drain.supervisor, text, reason: reason)
  end

  defp warn_unmarked(_drain, _marked), do: :ok

  defp await_stored(%{supervisor: supervisor, deadline: deadline} = drain, since_ms) do
    drain = await_storing(drain)
    counts = Storing.counts(drain.storing)
    level = if counts.failed > 0, do: :warning, else: :info
    processes = Host.processes(supervisor)
    total = length(processes)
    elapsed_us = Clock.now_us() - deadline.begin_us
    Log.write(level, :states_stored, supervisor, Progress.stored(counts, total, elapsed_us), counts)
    # If no state had to be written, only the heartbeat shows that the store accepts writes.
    written? = counts.stored > 0 or Sync.beat_since?(supervisor, since_ms)
    %{drain | trust_store?: all_stored?(counts, total) and written?, early: complete(drain.early, processes)}
  end

  # Moves that were in flight to this node when it was marked may end while states are stored. Such a server is listed
  # while it starts, but in a snapshot only when it has started.
  defp complete({snapshot, _taken_us} = early, processes), do: if(Snapshot.complete?(snapshot, processes), do: early)
  defp complete(nil, _processes), do: nil

  # A store that hangs has failed no write yet, so the counts must also add up to all servers.
  defp all_stored?(counts, total), do: counts.failed == 0 and counts.stored + counts.unchanged >= total

  defp await_storing(%{storing: %{pid: pid}, storing_monitor: monitor, watched: watched, deadline: deadline} = drain) do
    now = Clock.now_us()

    receive do
      {Storing, ^pid, :asked} ->
        drain |> take_early() |> await_storing()

      {Storing, ^pid, {:done, unanswered}} ->
        %{drain | unanswered: unanswered}

      {:DOWN, ^monitor, :process, ^pid, _crashed} ->
        drain

      {:cancel, {_why, by}} = cancel ->
        send_again(%{drain | deadline: Deadline.end_by(drain.deadline, by)}, cancel)

      {:cancel, :request} = cancel ->
        send_again(drain, cancel)

      {:DOWN, other, :process, _pid, _reason} = down when is_map_key(watched, other) ->
        send_again(drain, down)
    after
      min(@progress_ms, Deadline.until_ms(Deadline.settle_us(deadline), now)) ->
        if now < Deadline.settle_us(deadline), do: drain |> log_progress(now) |> await_storing(), else: drain
    end
  end

  defp log_progress(%{supervisor: supervisor, deadline: deadline} = drain, now) do
    counts = Storing.counts(drain.storing)
    text = Progress.stored(counts, Host.count(supervisor), now - deadline.begin_us)
    Log.info(:storing_progress, supervisor, text, counts)
    drain
  end

  defp send_again(drain, message) do
    send(self(), message)
    %{drain | cancelled?: true}
  end

  # The snapshot is taken while the last servers store their states and no other server is queued. A policy
  # that reads the store waits until storing is done.
  defp take_early(%{options: %{eligible: :permanent}} = drain), do: drain
  defp take_early(drain), do: %{drain | early: {take(drain), Clock.now_us()}}
end
