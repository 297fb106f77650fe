defmodule DurableHandoff.Drain.Storing do
  @moduledoc false
  # Makes all servers of a supervisor store their state while they still run, before the first one is moved.
  #
  # A node may be killed at any moment after SIGTERM. Without a drain its servers are stopped one after the
  # other, and each stores its state then. Storing first ensures that at any moment at least as many states
  # are in the store as without a drain. A server with an unchanged state writes nothing, so this takes
  # milliseconds when most servers have been synced recently.
  #
  # The Drainer starts this process, and tells it to ask the servers when the node is told to stop
  # (`DurableHandoff.Stopping`), or at the latest when a drain begins. The drain joins it (`join/2`) and moves
  # nothing before it is done.
  #
  # Guarantees:
  #
  #   * Asks as many servers in parallel as the graceful shutdown stops in parallel. A server that is busy with an
  #     earlier message does not count: it uses no store, and many of them must not keep the others waiting.
  #   * It is done only after every server has been asked since the last `ask/2` or `join/2`, or in the tenth
  #     of a second before. So no move is requested while a changed state still waits to be stored.
  #   * Never waits long for a slow server: once all have been asked, it does not wait for busy servers, nor for those
  #     that take longer than 500 ms and more than twice as long as the slowest one that has answered.
  #   * While the store fails it asks again, at most once a second, until its time is over.
  #   * A server whose write fails while the store accepts others is tried again by its own attempt.
  #   * It ends with the Drainer.

  use GenServer

  alias DurableHandoff.{Clock, Deadline, Host, Log}
  alias DurableHandoff.Host.Sync

  # Servers are identified by pid here. Listing their keys would delay the first writes.
  @enforce_keys [:supervisor, :watch, :timeout_ms, :concurrency, :counters]
  defstruct @enforce_keys ++
              [
                :until_us,
                :drain,
                :timer,
                told_asked?: false,
                listening?: false,
                unsure: [],
                phase: :done,
                queue: :queue.new(),
                running: %{},
                busy: MapSet.new(),
                answered: MapSet.new(),
                results: %{},
                longest_us: 0,
                pauses_ms: [],
                round: nil
              ]

  @type t :: %{pid: nil | pid(), monitor: nil | reference(), watch: Sync.watch(), counters: :counters.counters_ref()}
  @type counts :: %{stored: non_neg_integer(), unchanged: non_neg_integer(), failed: non_neg_integer()}

  # SIGTERM, the Drainer and its drain each ask, within milliseconds unless another child is slow to stop.
  @just_asked_us 100_000
  @least_patience_ms 500
  @pauses_ms [250, 500, 1_000]
  @probe_ms 1_000

  @counted [:stored, :unchanged, :failed]
  # These counters follow those of `@counted`; `written/1` returns them.
  @measured [:written, :asked, :span_us, :shortest_us]
  # With fewer writes the speed of the store is not known.
  @least_written 16

  @doc """
  A placeholder for drains in which each server stores its state only in its own attempt. Failed syncs are not
  observed then, so the attempt asks the store for a write before it stops a server with an unchanged state.
  """
  @spec none() :: t()
  def none do
    %{pid: nil, monitor: nil, watch: Sync.watch(), counters: :counters.new(length(@counted ++ @measured), [])}
  end

  @doc """
  Starts the process for the calling Drainer. `timeout_ms` is the limit for one server. No server is asked
  yet.
  """
  @spec start(Host.name(), timeout_ms :: pos_integer()) :: t()
  def start(supervisor, timeout_ms) do
    storing = %__MODULE__{
      supervisor: supervisor,
      watch: Sync.watch(),
      timeout_ms: timeout_ms,
      concurrency: Host.graceful_concurrency(supervisor),
      counters: :counters.new(length(@counted) + length(@measured), [])
    }

    {:ok, pid} = GenServer.start(__MODULE__, {storing, self()})
    %{pid: pid, monitor: Process.monitor(pid), watch: storing.watch, counters: storing.counters}
  end

  @doc "Ends the process. To be called by the process that started it."
  @spec stop(t()) :: :ok
  def stop(%{pid: pid, monitor: monitor, watch: watch}) do
    Process.demonitor(monitor, [:flush])
    Process.exit(pid, :shutdown)
    Sync.unwatch(watch)
  end

  @doc """
  Asks all servers that run now; those already queued come first. No failed write is tried again after
  `until_us`.
  """
  @spec ask(t(), until_us :: integer()) :: :ok
  def ask(%{pid: pid}, until_us), do: GenServer.cast(pid, {:ask, until_us, nil})

  @doc """
  As `ask/2`, for the calling drain. The drain gets `{DurableHandoff.Drain.Storing, pid, :asked}` when the
  last server has been asked, and the same with `{:done, unanswered}` at the end, with the servers that have not
  answered: at the latest at `until_us`, if all servers have been asked by then.
  """
  @spec join(t(), until_us :: integer()) :: monitor :: reference()
  def join(%{pid: pid}, until_us) do
    monitor = Process.monitor(pid)
    GenServer.cast(pid, {:ask, until_us, self()})
    monitor
  end

  @doc """
  The progress: servers that have written their state, servers that had nothing to write, and servers whose
  latest write failed.
  """
  @spec counts(t()) :: counts()
  def counts(%{counters: counters}) do
    for {name, index} <- Enum.with_index(@counted, 1), into: %{}, do: {name, :counters.get(counters, index)}
  end

  @doc """
  How fast the store wrote in the latest round: `written` states of the `asked` servers within `span_us`, the
  fastest one in `shortest_us`. nil when fewer than half of the servers had something to write, because then
  the servers may have been the limit, not the store.
  """
  @spec written(t()) :: nil | %{(:written | :asked | :span_us | :shortest_us) => pos_integer()}
  def written(%{counters: counters}) do
    measured =
      for {name, index} <- Enum.with_index(@measured, length(@counted) + 1),
          into: %{},
          do: {name, :counters.get(counters, index)}

    if measured.written > 0, do: measured
  end

  @impl true
  def init({storing, drainer}) do
    Process.monitor(drainer)
    pid = self()

    # The logger may be slow to answer, so servers are asked before it does: every millisecond counts on a
    # node that may be killed. A successful write is seen without the logger; only a failed one needs it.
    spawn_link(fn ->
      Sync.listen(storing.supervisor, storing.watch)
      send(pid, :listening)
    end)

    {:ok, storing}
  end

  @impl true
  def handle_cast({:ask, until_us, drain}, storing) do
    storing = %{storing | until_us: until_us, drain: drain || storing.drain}
    {:noreply, if(just_asked?(storing), do: go_on(storing), else: ask_all_anew(storing))}
  end

  defp just_asked?(%{phase: :first, round: round}), do: Clock.now_us() - round.begin_us < @just_asked_us
  defp just_asked?(_storing), do: false

  defp ask_all_anew(storing) do
    storing = %{storing | pauses_ms: @pauses_ms, longest_us: 0, round: current_round(storing)}
    ask_all(%{storing | answered: MapSet.new(), unsure: []}, :first, to_ask(storing))
  end

  defp current_round(%{phase: :done}) do
    now = Clock.now_us()
    %{begin_us: now, last_us: now, asked: 0, written: 0, shortest_us: :infinity}
  end

  defp current_round(%{round: round}), do: round

  # In the middle of a round the servers are not listed again: that would delay writes.
  defp to_ask(%{phase: :done} = storing) do
    being_asked = MapSet.new(being_asked(storing))
    for server <- Host.processes(storing.supervisor), server not in being_asked, do: server
  end

  defp to_ask(storing), do: :queue.to_list(storing.queue) ++ MapSet.to_list(storing.answered)

  # The servers that have been asked and have not answered yet.
  defp being_asked(storing), do: for({_worker, {server, _listening?}} <- storing.running, do: server)

  @impl true
  def handle_info({:synced, worker, result, took_us}, storing) do
    {{server, listening?}, running} = Map.pop!(storing.running, worker)
    answered = MapSet.put(storing.answered, server)
    storing = measured(%{storing | running: running, answered: answered}, worker, result, took_us)

    # Before the log filter is in place, a failed write looks like an unchanged state.
    storing =
      if result == :unchanged and not listening?,
        do: %{storing | unsure: [server | storing.unsure]},
        else: note(storing, server, result)

    {:noreply, go_on(storing)}
  end

  def handle_info({:busy, worker}, storing), do: {:noreply, go_on(%{storing | busy: MapSet.put(storing.busy, worker)})}

  def handle_info(:listening, storing), do: {:noreply, go_on(%{storing | listening?: true})}

  # While servers are queued, the last answer is not waited for yet.
  def handle_info({:timeout, timer, :patience}, %{timer: timer} = storing) do
    done? = storing.listening? and :queue.is_empty(storing.queue)
    {:noreply, if(done?, do: round_done(storing), else: storing)}
  end

  def handle_info({:timeout, timer, :again}, %{timer: timer} = storing),
    do: {:noreply, ask_all(storing, :first, failed(storing))}

  # The Drainer is gone. The linked workers end with this process.
  def handle_info({:DOWN, _monitor, :process, _drainer, _reason}, storing), do: {:stop, :shutdown, storing}
  def handle_info({:timeout, _earlier_timer, _what}, storing), do: {:noreply, storing}

  def handle_info(unexpected, storing) do
    Log.unexpected(storing.supervisor, unexpected)
    {:noreply, storing}
  end

  # In phase `:first` a failure may be caused by the store. In phase `:last` the store is known to work, so
  # the server itself is the cause.
  defp ask_all(storing, phase, servers),
    do: go_on(%{storing | phase: phase, queue: :queue.from_list(servers), timer: nil})

  # An answer came after the wait for slow servers had ended.
  defp go_on(%{phase: phase} = storing) when phase in [:paused, :done], do: storing

  defp go_on(%{listening?: true, unsure: [_ | _] = unsure} = storing),
    do: go_on(%{storing | unsure: [], queue: :queue.join(storing.queue, :queue.from_list(unsure))})

  defp go_on(%{queue: queue} = storing) do
    cond do
      not :queue.is_empty(queue) and storing_now(storing) < storing.concurrency ->
        {{:value, server}, queue} = :queue.out(queue)

        go_on(%{
          storing
          | queue: queue,
            running: Map.put(storing.running, sync(storing, server), {server, storing.listening?})
        })

      not :queue.is_empty(queue) ->
        storing

      true ->
        storing |> tell_asked() |> await_answers()
    end
  end

  defp tell_asked(%{drain: drain, told_asked?: false} = storing) when drain != nil do
    send(drain, {__MODULE__, self(), :asked})
    %{storing | told_asked?: true}
  end

  defp tell_asked(storing), do: storing

  defp storing_now(storing), do: map_size(storing.running) - MapSet.size(storing.busy)

  defp await_answers(%{listening?: listening?} = storing) do
    cond do
      storing_now(storing) > 0 -> set_timer(storing, :patience, patience_ms(storing))
      listening? -> round_done(storing)
      true -> storing
    end
  end

  defp patience_ms(%{until_us: until_us, longest_us: longest_us}) do
    @least_patience_ms |> max(div(2 * longest_us, 1_000)) |> min(Deadline.until_ms(until_us, Clock.now_us()))
  end

  defp sync(%{watch: watch, timeout_ms: timeout_ms, phase: phase}, server) do
    storing = self()
    sync = if phase == :last, do: &Sync.run_alone/4, else: &Sync.run/4

    spawn_link(fn ->
      started = Clock.now_us()
      worker = self()
      result = sync.(server, watch, timeout_ms, fn -> send(storing, {:busy, worker}) end)
      send(storing, {:synced, self(), result, Clock.now_us() - started})
    end)
  end

  defp round_done(%{phase: :last} = storing), do: done(storing)

  defp round_done(storing) do
    failed = failed(storing)

    cond do
      failed == [] or Clock.now_us() >= storing.until_us -> done(storing)
      Sync.store_takes_writes?(storing.supervisor, @probe_ms) -> ask_all(storing, :last, failed)
      true -> pause(storing)
    end
  end

  defp done(%{drain: drain} = storing) do
    publish(storing)
    if drain, do: send(drain, {__MODULE__, self(), {:done, unanswered(storing)}})
    %{storing | phase: :done, timer: nil, drain: nil, told_asked?: false, answered: MapSet.new()}
  end

  defp unanswered(%{results: results} = storing),
    do: being_asked(storing) ++ for({server, :timeout} <- results, do: server)

  defp pause(%{pauses_ms: [pause_ms | later]} = storing) do
    set_timer(%{storing | phase: :paused, pauses_ms: if(later == [], do: [pause_ms], else: later)}, :again, pause_ms)
  end

  # Only the latest timer counts, and none of an earlier round.
  defp set_timer(storing, message, time_ms), do: %{storing | timer: :erlang.start_timer(time_ms, self(), message)}

  # Servers whose latest write failed and which still run.
  defp failed(%{results: results}), do: for({server, :failed} <- results, Process.alive?(server), do: server)

  # The time of a busy server shows nothing about the store.
  defp measured(%{busy: busy} = storing, worker, result, took_us) do
    if worker in busy do
      %{storing | busy: MapSet.delete(busy, worker)}
    else
      round = measured(%{storing.round | asked: storing.round.asked + 1, last_us: Clock.now_us()}, result, took_us)
      %{storing | round: round, longest_us: max(storing.longest_us, took_us)}
    end
  end

  defp measured(round, :stored, took_us),
    do: %{round | written: round.written + 1, shortest_us: min(round.shortest_us, took_us)}

  defp measured(round, _nothing_written, _took_us), do: round

  # The speed of the store is known only if most of the asked servers had something to write. Otherwise the
  # figures of the earlier round stay.
  defp publish(%{round: %{written: written, asked: asked} = round, counters: counters})
       when written >= @least_written and 2 * written >= asked do
    values = [written, asked, max(round.last_us - round.begin_us, 1), max(round.shortest_us, 1)]
    for {value, index} <- Enum.with_index(values, length(@counted) + 1), do: :counters.put(counters, index, value)
  end

  defp publish(_storing), do: :unknown

  # A server counts as `:stored` even if it has nothing to write when it is asked again.
  defp note(%{results: results, counters: counters} = storing, server, result) do
    before = Map.get(results, server)

    now =
      case result do
        {:failed, _cause} -> :failed
        :unchanged when before == :stored -> :stored
        result when result in [:stored, :unchanged, :timeout] -> result
        {:ended, _reason} -> before
      end

    count(counters, before, -1)
    count(counters, now, 1)
    %{storing | results: Map.put(results, server, now)}
  end

  defp count(_counters, uncounted, _change) when uncounted in [nil, :timeout], do: :ok

  defp count(counters, result, change),
    do: :counters.add(counters, Enum.find_index(@counted, &(&1 == result)) + 1, change)
end
