defmodule DurableHandoff.Host.Sync do
  @moduledoc false
  # Makes a running server store its state, and finds out whether it did.
  #
  # DurableServer's timer sends a server `{:durable, :sync}`. The server then stores its state if that has
  # changed. It sends no reply, so the result has to be observed:
  #
  # | | seen as |
  # |---|---|
  # | stored | another etag, by a call `{:durable, :get_etag}` that is answered after it |
  # | unchanged: no write | the same etag |
  # | the write failed | the same etag, and a line that the host logs as an error in the server's process |
  # | another owner wrote the object, or its state cannot be dumped | the server ends |
  #
  # So only the log line distinguishes a failed write from an unchanged state. `listen/2` adds a log filter
  # while syncs run. Where errors are not logged at all (`blind?/1`), it is unknown whether an unchanged server
  # is stored.
  #
  # Guarantees: nothing here raises; a sync that is not answered in time may still run later, which is
  # harmless.

  alias DurableHandoff.{Clock, Host}
  alias DurableHandoff.Host.{Mark, Probe}

  @type watch :: :ets.tid()
  @type result :: :stored | :unchanged | {:failed, cause :: String.t()} | {:ended, reason :: term()} | :timeout

  # A row of the table: the server, its failed writes, and why the last one failed.
  @failures 2
  @cause 3

  # A server that has not begun with a message after this time is busy.
  @busy_ms 500
  # A working store answers within this time.
  @probe_ms 2_000

  # The limit of the text of a failed write: an exception in it may contain a whole state.
  @longest_cause 300

  @doc "A table for failed syncs. Ends with the calling process; `unwatch/1` tidies up."
  @spec watch() :: watch()
  def watch, do: :ets.new(__MODULE__, [:public, :set, write_concurrency: true])

  @doc """
  Starts to record failed syncs of the supervisor `name` in `table`. The logger may take a while to answer.
  """
  @spec listen(Host.name(), watch()) :: :ok
  def listen(name, table) do
    # Removes the filter of a Drainer that was killed.
    _none = :logger.remove_primary_filter(filter_id(name))
    :ok = :logger.add_primary_filter(filter_id(name), {&__MODULE__.note_failure/2, table})
  end

  @doc "Ends a watch. Removes the filter only if it is this watch's own."
  @spec unwatch(watch()) :: :ok
  def unwatch(table) do
    with {id, _filter} <- filter(table), do: :logger.remove_primary_filter(id)
    :ets.delete(table)
    :ok
  end

  @doc """
  Whether failed syncs cannot be seen: DurableServer's errors are not logged, or a later drain has replaced
  the filter.
  """
  @spec blind?(watch()) :: boolean()
  def blind?(table), do: filter(table) == nil or not :logger.allow(:error, DurableServer)

  defp filter(table),
    do: Enum.find(:logger.get_primary_config().filters, &match?({_id, {_function, ^table}}, &1))

  @doc """
  Makes the server `pid` store its state. Takes at most about `timeout_ms`. Calls `busy` if the server has not
  begun with that after 500 ms, because it handles an earlier message.

  All requests are sent at once, so that the server wakes up once. So an error that DurableServer logs while
  the server handles an earlier message counts as a failed write, too.
  """
  @spec run(pid(), watch(), pos_integer(), busy :: (() -> term())) :: result()
  def run(pid, table, timeout_ms, busy \\ fn -> :ok end) do
    until_us = Clock.after_ms(timeout_ms)
    failures = failures(table, pid)
    before = ask(pid)
    send(pid, {:durable, :sync})
    later = ask(pid)
    before = first_answer(before, until_us, busy)
    later = answer(later, Clock.until_ms(until_us))
    result(before, later, cause(table, pid, failures))
  end

  @doc """
  The same, but waits first until the server has handled its earlier messages, so that their errors do not
  count as a failed write.
  """
  @spec run_alone(pid(), watch(), pos_integer(), busy :: (() -> term())) :: result()
  def run_alone(pid, table, timeout_ms, busy \\ fn -> :ok end) do
    until_us = Clock.after_ms(timeout_ms)

    with {:ok, _etag} = before <- pid |> ask() |> first_answer(until_us, busy) do
      failures = failures(table, pid)
      send(pid, {:durable, :sync})
      later = etag(pid, max(Clock.until_ms(until_us), 1))
      result(before, later, cause(table, pid, failures))
    end
  end

  defp first_answer(request, until_us, busy) do
    case :gen_server.wait_response(request, min(@busy_ms, Clock.until_ms(until_us))) do
      :timeout ->
        busy.()
        answer(request, Clock.until_ms(until_us))

      answer ->
        answer(answer)
    end
  end

  defp result({:ok, etag}, {:ok, etag}, nil), do: :unchanged
  defp result({:ok, etag}, {:ok, etag}, cause), do: {:failed, cause}
  defp result({:ok, _before}, {:ok, _written}, _cause), do: :stored
  defp result({:ok, _before}, other, _cause), do: other
  defp result(other, _later, _cause), do: other

  @doc """
  Whether the store accepts a write now. On a node that is marked draining for good it makes DurableServer
  write this node's heartbeat again, by marking the node once more, so no state is at risk. On any other node,
  or if heartbeats are stored elsewhere, it sends a write that the store must refuse
  (`DurableHandoff.Host.refuses_stale_write?/2`). Returns false if it cannot find out within `timeout_ms`.

  Callers at the same time share one write (`DurableHandoff.Host.Probe`).
  """
  @spec store_takes_writes?(Host.name(), pos_integer()) :: boolean()
  def store_takes_writes?(name, timeout_ms) do
    since_ms = System.system_time(:millisecond)
    by_heartbeat? = Mark.mark(name) == :final and Host.heartbeats_in_storage?(name)
    probe = if by_heartbeat?, do: &beats?/1, else: &Host.refuses_stale_write?(&1, @probe_ms)

    with :timeout <- Probe.run(name, fn -> probe.(name) end, timeout_ms),
         do: by_heartbeat? and beat_since?(name, since_ms)
  end

  # DurableServer writes the heartbeats one after the other and goes on writing for callers that have given up,
  # so this waits for its answer. (Before 0.1.5 for 5 s.)
  defp beats?(name) do
    since_ms = System.system_time(:millisecond)
    _answer = Mark.stop(name, :infinity)
    beat_since?(name, since_ms)
  end

  @doc """
  Whether the store has accepted a heartbeat of this node since `since_ms`. True if heartbeats are kept
  elsewhere.
  """
  @spec beat_since?(Host.name(), since_ms :: integer()) :: boolean()
  def beat_since?(name, since_ms) do
    own = Atom.to_string(node())

    not Host.heartbeats_in_storage?(name) or
      Enum.any?(Host.View.build(name, [], []).nodes, &(&1.name == own and &1.stamp_ms >= since_ms))
  end

  @doc """
  Whether a server that is registered as `pid` has started. DurableServer registers a server before it stores
  that the server runs, and ends the process if that write fails. Until the write is done the process answers
  no messages.

  Asks the process and waits at most `timeout_ms`. A process that is alive and does not answer in time is busy
  and counts as started. `:unknown`: its node cannot be asked.
  """
  @spec started?(pid(), timeout_ms :: pos_integer()) :: boolean() | :unknown
  def started?(pid, timeout_ms) do
    case etag(pid, timeout_ms) do
      {:ok, _etag} -> true
      :timeout -> Host.alive?(pid)
      {:ended, {:unexpected, _answer}} -> true
      {:ended, :noconnection} -> :unknown
      {:ended, _reason} -> false
    end
  end

  @doc false
  # A primary filter: it runs in the process that logs.
  @spec note_failure(:logger.log_event(), watch()) :: :ignore
  def note_failure(%{level: :error, msg: message, meta: %{mfa: {module, _function, _arity}}}, table) do
    if :ets.member(table, self()) and host?(module) do
      :ets.update_element(table, self(), {@cause, readable(message)})
      :ets.update_counter(table, self(), {@failures, 1})
    end

    :ignore
  rescue
    # The table ended with its drain.
    ArgumentError -> :ignore
  end

  def note_failure(_event, _table), do: :ignore

  defp etag(pid, timeout_ms), do: pid |> ask() |> answer(timeout_ms)

  defp ask(pid), do: :gen_server.send_request(pid, {:durable, :get_etag})

  # An answer that comes later is dropped.
  defp answer(request, timeout_ms), do: request |> :gen_server.receive_response(timeout_ms) |> answer()

  defp answer({:reply, {:ok, etag}}), do: {:ok, etag}
  defp answer({:reply, other}), do: {:ended, {:unexpected, other}}
  defp answer({:error, {reason, _server}}), do: {:ended, reason}
  defp answer(:timeout), do: :timeout

  # Starts to count the server's failed writes. Does not reset the count, because an earlier sync that gave up
  # on a busy server may still be watching it.
  defp failures(table, pid) do
    :ets.update_counter(table, pid, {@failures, 0}, {pid, 0, nil})
  rescue
    # The table ended with its drain.
    ArgumentError -> 0
  end

  defp cause(table, pid, failures) do
    case :ets.lookup(table, pid) do
      [{^pid, now, cause}] when now > failures -> cause
      _none -> nil
    end
  rescue
    ArgumentError -> nil
  end

  defp host?(DurableServer), do: true
  defp host?(module), do: module |> Atom.to_string() |> String.starts_with?("Elixir.DurableServer.")

  # Logger removes a filter that raises, so this function must not raise.
  defp readable(message) do
    text(message)
  rescue
    _unreadable -> "an error that is not text"
  end

  defp text({:string, text}), do: text |> IO.chardata_to_string() |> String.slice(0, @longest_cause)
  defp text({:report, report}), do: inspect(report, limit: 10, printable_limit: @longest_cause)
  defp text({format, arguments}), do: text({:string, :io_lib.format(format, arguments)})

  defp filter_id(name), do: :"#{name}_handoff_syncs"
end
