defmodule DurableHandoff.Drain.Attempt do
  @moduledoc false
  # The process that moves one server. It runs the attempts of the server, and is responsible for the server until it is
  # settled.
  #
  # Guarantees:
  #
  #   * It has no supervisor, belongs to no application, and traps exits: only the end of the VM stops it in the middle
  #     of a rehome, and another such process, which takes over from it (`leave_target/3`).
  #   * A server that is down and reserved for this node always has a live process that holds it. When the
  #     drain that gave the orders is gone, whatever the cause, that process clears the reservation itself,
  #     even after DurableServer has stopped. A store that fails is asked again until the reservation has expired
  #     (`Host.reservation_ms/1`). (A VM that ends before can leave one until then.)
  #   * A server that a rebalance has stopped and gives up is started again where DurableServer places it: its node goes
  #     on. So is one of a move that is over; before that the move itself does so. And so is one of a drain that is
  #     over, if the node is uncordoned by then; before that other nodes do so.
  #
  #     start ── attempt ──┬── moved, gone, lost race, untouched, not storable ► end
  #                ▲       ├── displaced, retry same ──► hold ──┬── :release ──► clear the reservation, answer, end
  #                │       └── stopping ──► wait for DOWN ──┘   ├── drain gone ► clear the reservation, end
  #                └──────────────── {:retry, ...} ─────────────┘
  #
  # Messages to the drain, each with this process' pid: `{:attempted, pid, result}`, `{:stopped, pid}` and
  # `{:released, pid, :ok | {:error, reason}}`.

  alias DurableHandoff.Client.Server
  alias DurableHandoff.{Clock, Deadline, Host, Log, Native, Status}
  alias DurableHandoff.Drain.{Quiet, StoredFirst}
  alias DurableHandoff.Host.{Outcome, Registry, Rehome, Reservation}

  # Pauses between attempts to clear a reservation. Their sum is less than the time that the engine reserves
  # for this.
  @pauses_ms [50, 150]
  # The first pauses after the drain was told that clearing failed, and each of the others.
  @later_pauses_ms [250, 500, 1_000, 2_000]
  @each_later_ms 4_000

  # A server is not stopped for a move with less time than this.
  @least_move_ms 50
  # The time for starting a server again, and the pauses before it is tried once more.
  @start_ms 10_000
  @start_pauses_ms [100, 1_000, 4_000]

  # `unsure`: the server was stopped, and it is unknown whether its final write was stored. This is the
  # outcome if it was not. `turn?`: false for a rebalance when a move has the server.
  # `reservation_ms`: read at the start, as `storage` is: DurableServer may have stopped when it is needed.
  @enforce_keys [:drain, :monitor, :supervisor, :goal, :storage, :reservation_ms, :server]
  defstruct @enforce_keys ++ [:unsure, :turn?]

  @type order :: %{number: pos_integer(), target: String.t(), timeout_ms: pos_integer(), store: StoredFirst.how()}
  @type phase :: :attempting | :stopping | :displaced
  @typedoc "What the process belongs to. `mover`: the process that has the lock `turn/3`."
  @type of :: {Host.name(), goal :: :drain | {:move, mover :: pid()} | :rebalance}
  @typedoc "`latency_us`: the time of the move alone, without the sync before it, while the server still ran."
  @type result :: %{
          outcome: Native.outcome(),
          why:
            nil
            | Rehome.why()
            | StoredFirst.why()
            | :final_write_failed
            | :store_takes_no_reads
            | :target_silent
            | :died,
          latency_us: non_neg_integer()
        }

  @doc "The lock of `:global`, on this node, of the move or rebalance that moves the server `key`. `mover` holds it."
  @spec turn(Host.name(), term(), mover :: pid()) :: {term(), pid()}
  def turn(supervisor, key, mover), do: {{__MODULE__, supervisor, key}, mover}

  @doc "Starts the first attempt for `server`. The caller is the drain: it monitors the process and gets its messages."
  @spec start(of(), Host.server(), order()) :: {pid(), reference()}
  def start(of, server, order) do
    spawn_for(of, server, fn attempt ->
      if attempt.turn?,
        do: attempt(attempt, order, :running),
        else: report(attempt, {:untouched, :server}, :busy, 0)
    end)
  end

  @doc """
  Starts a process that replaces one that died. If that one died during an attempt (`:attempting`), the new
  process finds out where the server is and reports that as the result. In later phases it only takes over the
  server that the dead process held.
  """
  @spec replace(of(), Host.server(), phase() | :leaving, nil | order()) :: {pid(), reference()}
  def replace({supervisor, _goal} = of, server, phase, order) when phase in [:attempting, :leaving],
    do: spawn_for(of, server, &report(&1, Rehome.locate(supervisor, server, order.target), :died, 0))

  def replace(of, server, :stopping, _order), do: spawn_for(of, server, &await_stop/1)
  def replace(of, server, :displaced, _order), do: spawn_for(of, server, &hold(%{&1 | unsure: :not_stored}))

  @doc """
  Replaces the process `old`, whose attempt waits for a target that does not answer, by a new one, and kills
  `old`. The server must have stopped. If that target has claimed it, the move is over. Else, of two starts,
  the one that is stored later fails.
  """
  @spec leave_target(of(), Host.server(), old :: pid()) :: {pid(), reference()}
  def leave_target({supervisor, _goal} = of, server, old) do
    spawn_for(of, server, fn attempt ->
      monitor = Process.monitor(old)
      Process.exit(old, :kill)

      receive do
        {:DOWN, ^monitor, :process, ^old, _killed} -> :ok
      end

      case Rehome.left_at_silent_target(supervisor, server) do
        :not_stored -> report(attempt, :not_stored, :final_write_failed, 0)
        {:displaced, :store} = outcome -> report(%{attempt | unsure: :not_stored}, outcome, :store_takes_no_reads, 0)
        outcome -> report(attempt, outcome, :target_silent, 0)
      end
    end)
  end

  @doc "Starts the next attempt for the server that `pid` holds."
  @spec retry(pid(), order()) :: :ok
  def retry(pid, order), do: tell(pid, {:retry, order})

  @doc "Makes `pid` clear the server's reservation and then send `{:released, pid, result}`."
  @spec release(pid()) :: :ok
  def release(pid), do: tell(pid, :release)

  @doc "The phase after an outcome; nil: the process ends."
  @spec phase_after(Native.outcome()) :: nil | :stopping | :displaced
  def phase_after(:stopping), do: :stopping
  def phase_after(:retry_same), do: :displaced
  def phase_after({:displaced, _blame}), do: :displaced
  def phase_after(unsaved) when unsaved in [:not_stored, :stop_failed], do: :displaced
  def phase_after(_settled), do: nil

  defp tell(pid, message) do
    send(pid, {__MODULE__, message})
    :ok
  end

  defp spawn_for({supervisor, goal}, server, work) do
    drain = self()

    :proc_lib.spawn_opt(
      fn ->
        Host.leave_application()

        work.(%__MODULE__{
          drain: drain,
          monitor: Process.monitor(drain),
          supervisor: supervisor,
          goal: goal,
          storage: Host.storage(supervisor),
          reservation_ms: Host.reservation_ms(supervisor),
          server: server,
          turn?: goal == :drain or :global.set_lock(turn(supervisor, server.key, mover(goal)), [node()], 0)
        })
      end,
      [:monitor]
    )
  end

  # A lock ends with the last process that has set it: this one may outlive its move.
  defp mover({:move, mover}), do: mover
  defp mover(:rebalance), do: self()

  # The server is stopped only after it has stored its state.
  defp attempt(attempt, order, :running) do
    started = Clock.now_us()
    until_us = started + order.timeout_ms * 1_000

    with :ok <- StoredFirst.check(attempt.supervisor, attempt.server, order.store, until_us),
         left_ms when left_ms >= @least_move_ms <- Deadline.until_ms(until_us, Clock.now_us()) do
      move(attempt, %{order | timeout_ms: left_ms}, :running)
    else
      {outcome, why} -> report(attempt, outcome, why, Clock.now_us() - started)
      _too_little -> report(attempt, {:untouched, :server}, :busy, Clock.now_us() - started)
    end
  end

  # DurableServer would start it from the stored state even if its final write had failed, so that is checked
  # first.
  defp attempt(%{unsure: unsaved} = attempt, order, :displaced) when unsaved != nil do
    started = Clock.now_us()

    case Rehome.final_write(attempt.storage, attempt.server) do
      :displaced -> move(%{attempt | unsure: nil}, order, :displaced)
      :not_stored -> report(%{attempt | unsure: nil}, unsaved, :final_write_failed, Clock.now_us() - started)
      :unknown -> report(attempt, {:displaced, :store}, :store_takes_no_reads, Clock.now_us() - started)
    end
  end

  defp attempt(attempt, order, :displaced), do: move(attempt, order, :displaced)

  defp move(attempt, order, state) do
    started = Clock.now_us()
    %{supervisor: supervisor, server: server} = attempt
    announce = &Server.announce(supervisor, server.key, &1)

    {outcome, why} =
      Quiet.run(fn -> Rehome.run(supervisor, server, state, order.target, order.timeout_ms, announce) end)

    # An unknown error may have been caused by the store.
    unsure? = state == :running and outcome in [{:displaced, :store}, {:displaced, :unknown}]
    attempt = %{attempt | unsure: if(unsure?, do: :not_stored)}
    report(attempt, outcome, why, Clock.now_us() - started)
  end

  defp report(attempt, outcome, why, latency_us) do
    send(attempt.drain, {:attempted, self(), %{outcome: outcome, why: why, latency_us: latency_us}})

    case phase_after(outcome) do
      :stopping -> await_stop(attempt)
      :displaced -> hold(attempt)
      nil -> :ok
    end
  end

  # Waits only for the end of the server. If the drain is gone by then, hold/1 finds that message in the mailbox.
  defp await_stop(%{server: %{pid: pid}} = attempt) do
    monitor = Process.monitor(pid)

    receive do
      {:DOWN, ^monitor, :process, ^pid, reason} ->
        send(attempt.drain, {:stopped, self()})
        hold(%{attempt | unsure: Outcome.unsaved(reason)})
    end
  end

  defp hold(%{monitor: drain_monitor} = attempt) do
    receive do
      {__MODULE__, {:retry, order}} ->
        attempt(attempt, order, :displaced)

      {__MODULE__, :release} ->
        clear(attempt)
        if attempt.goal == :rebalance, do: start_again(attempt)

      {:DOWN, ^drain_monitor, :process, _drain, _reason} ->
        clear(attempt)
        if attempt.goal != :drain or not Status.marked?(attempt.supervisor), do: start_again(attempt)
    end
  end

  # A drain that is gone gets no answer.
  defp clear(attempt) do
    result = clear(attempt, @pauses_ms)
    send(attempt.drain, {:released, self(), result})
    if result != :ok, do: clear_later(attempt, result)
  end

  defp clear(%{storage: storage, server: server} = attempt, pauses_ms) do
    case {Reservation.release(storage, server.key), pauses_ms} do
      {{:error, _reason}, [pause_ms | pauses_ms]} ->
        Process.sleep(pause_ms)
        clear(attempt, pauses_ms)

      {result, _pauses_ms} ->
        result
    end
  end

  # Counts pauses, not time: slow requests only make it try for longer.
  defp clear_later(%{server: server, reservation_ms: reservation_ms} = attempt, {:error, reason}) do
    text =
      "the reservation of #{inspect(server.key)} could not be cleared yet; it is tried again. Other nodes can start the " <>
        "server when it is cleared or has expired, within #{Log.seconds(reservation_ms)}: " <>
        inspect(reason, limit: 10, printable_limit: 200)

    Log.warning(:reservation_left, attempt.supervisor, text, key: server.key, reason: reason)

    [first_ms | pauses_ms] = later_pauses_ms(reservation_ms)
    Process.sleep(first_ms)
    clear(attempt, pauses_ms)
  end

  @doc "The pauses between attempts to clear a reservation later. After their sum it has expired."
  @spec later_pauses_ms(reservation_ms :: pos_integer()) :: nonempty_list(pos_integer())
  def later_pauses_ms(reservation_ms),
    do: @later_pauses_ms ++ List.duplicate(@each_later_ms, div(reservation_ms, @each_later_ms) + 1)

  # DurableServer refuses this if another node has started the server, or it is deleted.
  defp start_again(%{supervisor: supervisor, server: server} = attempt, pauses_ms \\ @start_pauses_ms) do
    case {Registry.start(supervisor, server.key, {server.module, :stored}, @start_ms), pauses_ms} do
      {{:again, _later}, [pause_ms | pauses_ms]} ->
        Process.sleep(pause_ms)
        start_again(attempt, pauses_ms)

      {_started_or_final, _pauses_ms} ->
        :ok
    end
  end
end
