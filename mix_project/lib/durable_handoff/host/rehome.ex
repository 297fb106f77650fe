defmodule DurableHandoff.Host.Rehome do
  @moduledoc false
  # Moves one server with `rehome_child/3`, and finds out where it is afterwards.
  #
  # Guarantees: never raises; ends with an outcome the engine knows; a server that is down and reserved for
  # this node is always reported `{:displaced, _}` or `:retry_same`, so that the caller knows it has something
  # to give back; nothing is stopped for a target that is not connected; a server that an earlier attempt has
  # stopped, and that runs again by now, is not stopped again; then, and after an answer that leaves it
  # open, a server is reported moved only when the process that is registered on another node answers (see
  # `Sync.started?/2`).
  #
  # It blocks for as long as DurableServer takes (stop, final write, one read, one remote start), plus at most
  # about a second to find the server after an ambiguous answer. If the server is then in `init` on the
  # target, it waits until the time of the attempt is over.

  alias DurableHandoff.{Clock, Host, Native}
  alias DurableHandoff.Host.{Outcome, Reservation, Sync, UnknownAnswer}

  # A server whose remote start had no answer is usually registered within a few round trips or not at all.
  # Every lookup is local.
  @poll_every_ms 50
  @polls 20
  @patience_ms 1_000

  @type state :: :running | :displaced
  @type why :: Outcome.answer() | :not_connected | :not_running | :store_takes_no_reads

  @doc """
  Moves `server`, which runs here (`:running`) or was displaced by an earlier attempt (`:displaced`), to the
  node named `target`.

  Returns the outcome and, unless the server moved as ordered, the reason. `on_owner` is called with the new
  owner if DurableServer returns it; registries may not know that owner yet.
  """
  @spec run(Host.name(), Host.server(), state(), String.t(), pos_integer(), (pid() -> term())) ::
          {Native.outcome(), nil | why()}
  def run(name, server, state, target, timeout_ms, on_owner \\ &Function.identity/1) do
    case {connected(target), state} do
      {nil, :running} ->
        {{:untouched, :target}, :not_connected}

      {nil, :displaced} ->
        {{:displaced, :target}, :not_connected}

      {node, _state} ->
        attempt = attempt(name, server, node, Clock.now_us() + timeout_ms * 1_000)
        result = run(attempt, state, timeout_ms, on_owner)
        Process.demonitor(attempt.monitor, [:flush])
        result
    end
  end

  # DurableServer does not return why a server ended, so the server is monitored.
  defp attempt(name, server, target, until_us),
    do: %{name: name, server: server, target: target, until_us: until_us, monitor: Process.monitor(server.pid)}

  defp run(%{name: name, server: server, target: target} = attempt, state, timeout_ms, on_owner) do
    cond do
      state == :running and not Process.alive?(server.pid) ->
        {settle(:not_running, attempt), :not_running}

      # Since the earlier attempt. DurableServer would stop it, without a sync before.
      owner = state == :displaced && runs_again(attempt, @patience_ms) ->
        on_owner.(owner)
        came_up(owner, attempt)

      true ->
        answer = Host.rehome_child(name, server, target, timeout_ms)
        with pid when is_pid(pid) <- Outcome.owner(answer, server.pid), do: on_owner.(pid)
        answer |> meaning(attempt) |> as_before(state)
    end
  end

  # A client has started it here, after its reservation has expired.
  defp came_up(owner, _attempt) when node(owner) == node(), do: {:lost_race, nil}

  # An engine takes a move for a sign that the store serves, so it is read. One that returns an object that cannot be
  # read serves.
  defp came_up(owner, %{name: name, server: server} = attempt) do
    with {:error, reason} <- Host.stored(Host.storage(name), server.key),
         :store <- Outcome.blame_read(reason) do
      {{:displaced, :store}, :store_takes_no_reads}
    else
      _served -> {moved(owner, attempt), nil}
    end
  end

  # If an earlier attempt stopped the server, `:untouched` means that it is still stopped.
  defp as_before({:untouched, why}, :displaced), do: {{:displaced, :unknown}, why}
  defp as_before(result, _state), do: result

  @doc """
  The outcome for a server whose attempt ended without an answer: finds out where the server is. If it is
  displaced, no failure is counted and the same target is tried again.
  """
  @spec locate(Host.name(), Host.server(), String.t()) :: Native.outcome()
  def locate(name, server, target) do
    attempt = attempt(name, server, connected(target), Clock.now_us())
    with {:displaced, _blame} <- settle({:displaced, :unknown}, attempt), do: :retry_same
  end

  @doc """
  The outcome for a stopped server whose target does not answer. `:lost_race` if another node has claimed it,
  as that target may have: while the heartbeats of that node count, no other one can start the server.
  """
  @spec left_at_silent_target(Host.name(), Host.server()) :: Native.outcome()
  def left_at_silent_target(name, server) do
    free = {:displaced, :target}
    attempt = %{name: name, server: server, until_us: Clock.now_us()}
    # `{:displaced, :unknown}`: reserved for this node.
    with {:displaced, :unknown} <- stored_outcome(attempt, %{unsaved: :not_stored, free: free}), do: free
  end

  @doc """
  What is known of a displaced server whose last attempt failed in the store: `:not_stored` if its final write
  failed, `:displaced` if that write succeeded, another node has the server or its object cannot be read, `:unknown`
  while the store does not answer. One read.
  """
  @spec final_write(Host.storage() | nil, Host.server()) :: :not_stored | :displaced | :unknown
  def final_write(storage, server) do
    case Host.stored(storage, server.key) do
      {:ok, %{meta: %{status: :running, pid: pid}}} when pid == server.pid -> :not_stored
      {:ok, _stopped_or_elsewhere} -> :displaced
      {:error, :not_found} -> :displaced
      {:error, reason} -> if Outcome.blame_read(reason) == :server, do: :displaced, else: :unknown
    end
  end

  # The atom of a connected node exists, so a name without an atom cannot be reached.
  defp connected(target) do
    node = String.to_existing_atom(target)
    if node in Node.list(:connected), do: node
  rescue
    ArgumentError -> nil
  end

  defp meaning(answer, %{server: server, target: target} = attempt) do
    case Outcome.classify(answer, server.pid, target) do
      {:verify, question} ->
        if question == {:displaced, :unknown}, do: note(answer)
        {settle(question, attempt), answer}

      {:moved, nil} ->
        {{:moved, nil}, nil}

      outcome ->
        {outcome, answer}
    end
  end

  # A DurableServer that is stopping, or gone with its tables.
  defp note({:raised, :exit, _reason}), do: :known
  defp note({:raised, :error, reason}) when reason == :badarg or is_struct(reason, ArgumentError), do: :known
  defp note({:raised, _kind, reason}), do: UnknownAnswer.note(:rehome_child, reason)
  defp note({:returned, result}), do: UnknownAnswer.note(:rehome_child, result)

  defp settle({:runs_as, pid}, attempt) do
    case Sync.started?(pid, patience_ms(attempt)) do
      true when node(pid) == node() -> :untouched
      true -> moved(pid, attempt)
      # The registry still has the dead process, as when the target has not seen the stop yet.
      false -> :retry_same
      :unknown -> {:displaced, :target}
    end
  end

  defp settle({:boots_as, pid}, attempt), do: await_init(pid, attempt)
  defp settle({:may_come_up, blame}, attempt), do: await_start(blame, attempt, @polls)

  # The server was already stopping. Only the store shows whether the reservation was written before.
  defp settle(:stopped_by_itself, attempt), do: settle_stopped(attempt, :gone)
  # The server had already ended. DurableServer handles that in its usual way.
  defp settle(:not_running, attempt), do: stored_outcome(attempt, %{unsaved: :gone, free: :gone})

  # DurableServer answers this if its own reservation is not in the store after the stop. A server whose final
  # write failed does not count as moved wherever it starts again, because it starts from its last sync.
  defp settle(:reservation_lost, attempt), do: settle_stopped(attempt, {:displaced, :unknown})

  defp settle(:ended, attempt) do
    with {:displaced, _blame} <- settle({:displaced, :unknown}, attempt), do: :gone
  end

  defp settle({:displaced, blame}, %{name: name, server: server} = attempt) do
    if Process.alive?(server.pid) do
      :untouched
    else
      case Host.lookup(name, server.key) do
        {:elsewhere, pid} -> if started?(pid, attempt), do: moved(pid, attempt), else: {:displaced, blame}
        {:here, pid} when pid != server.pid -> :untouched
        _nowhere -> {:displaced, blame}
      end
    end
  end

  defp moved(pid, %{target: target}), do: {:moved, if(node(pid) != target, do: Atom.to_string(node(pid)))}

  defp started?(pid, attempt), do: Sync.started?(pid, patience_ms(attempt)) == true

  defp patience_ms(%{until_us: until_us}), do: max(div(until_us - Clock.now_us(), 1_000), @patience_ms)

  # The reason is `:noproc` if the server was already down.
  defp settle_stopped(%{monitor: monitor} = attempt, free) do
    receive do
      {:DOWN, ^monitor, :process, _pid, reason} ->
        stored_outcome(attempt, %{unsaved: Outcome.unsaved(reason), free: free})
    after
      @patience_ms -> :stopping
    end
  end

  # Finds out from the registry, then from the store, what became of a server that is down here. `unsaved`:
  # the outcome if it is still stored as running here, so that it has no final write and can only start from
  # its last sync. `free`: the outcome if it is stored as stopped and not reserved.
  defp stored_outcome(%{name: name, server: server} = attempt, %{unsaved: unsaved, free: free}) do
    if runs_again(attempt, patience_ms(attempt)) do
      :lost_race
    else
      case Host.stored(Host.storage(name), server.key) do
        {:ok, %{meta: %{status: :running, pid: pid}}} when pid == server.pid -> unsaved
        {:ok, %{meta: %{status: :running, pid: pid}}} when is_pid(pid) -> owned_by(pid)
        {:ok, %{meta: %{status: :running}}} -> :lost_race
        {:ok, %{meta: %{status: :stopped_graceful} = meta}} -> reserved_for(meta, free)
        {:ok, _ended} -> :gone
        {:error, :not_found} -> :gone
        {:error, reason} -> not_read(Outcome.blame_read(reason), free)
      end
    end
  end

  # The process that has started since, by the registry; nil if there is none.
  defp runs_again(%{name: name, server: server}, patience_ms) do
    with {_place, pid} when pid != server.pid <- Host.lookup(name, server.key),
         true <- Sync.started?(pid, patience_ms) do
      pid
    else
      _nowhere -> nil
    end
  end

  # It ended by itself, as a server does whose object another writer has replaced.
  defp not_read(:server, :gone), do: :gone
  defp not_read(blame, _free), do: {:displaced, blame}

  # A process that took the lock and ended before its start was complete is not an owner: the lock of its node
  # stays in the store, and the server runs nowhere.
  defp owned_by(pid), do: if(Host.alive?(pid) == false, do: {:displaced, :server}, else: :lost_race)

  defp reserved_for(meta, free) do
    cond do
      Reservation.ours?(meta) -> {:displaced, :unknown}
      Map.get(meta, :restart_attempt_node) -> :lost_race
      true -> free
    end
  end

  # A start whose answer was lost, or for which DurableServer no longer waits. The server is registered within
  # a few round trips, or is still in init.
  defp await_start(blame, attempt, polls) do
    case settle({:displaced, blame}, attempt) do
      {:displaced, _blame} when polls > 1 ->
        Process.sleep(@poll_every_ms)
        await_start(blame, attempt, polls - 1)

      {:displaced, _blame} ->
        case Host.stored(Host.storage(attempt.name), attempt.server.key) do
          {:ok, %{meta: %{status: :running, pid: pid}}} when is_pid(pid) and node(pid) != node() ->
            await_init(pid, attempt)

          {:ok, _not_claimed} ->
            settle({:displaced, blame}, attempt)

          {:error, :not_found} ->
            :gone

          {:error, reason} ->
            settle({:displaced, Outcome.blame_read(reason)}, attempt)
        end

      outcome ->
        outcome
    end
  end

  # `pid` holds the lock. It is registered after its init; if it ends before, its init failed.
  defp await_init(pid, attempt) do
    monitor = Process.monitor(pid)
    outcome = await_init(pid, monitor, attempt)
    Process.demonitor(monitor, [:flush])
    outcome
  end

  defp await_init(pid, monitor, attempt) do
    receive do
      {:DOWN, ^monitor, :process, ^pid, :noconnection} -> settle({:displaced, :target}, attempt)
      {:DOWN, ^monitor, :process, ^pid, _reason} -> settle({:displaced, :server}, attempt)
    after
      @poll_every_ms ->
        case settle({:displaced, :server}, attempt) do
          {:displaced, :server} = still ->
            if Clock.now_us() < attempt.until_us, do: await_init(pid, monitor, attempt), else: still

          outcome ->
            outcome
        end
    end
  end
end
