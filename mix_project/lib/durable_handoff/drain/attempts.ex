defmodule DurableHandoff.Drain.Attempts do
  @moduledoc false
  # Which `Attempt` process has which server of a drain, and the phase from which a new process continues if
  # it dies. `DurableHandoff.Drain` draws the phases.

  alias DurableHandoff.Drain.Attempt
  alias DurableHandoff.{Host, Native}

  # `holders`: the processes that hold a stopped or stopping server, by the server's number in the engine.
  @enforce_keys [:of]
  defstruct @enforce_keys ++ [running: %{}, holders: %{}]

  @type id :: non_neg_integer()
  @type running :: %{
          id: id(),
          order: nil | Attempt.order(),
          phase: Attempt.phase() | :leaving | :releasing,
          monitor: reference()
        }
  @type t :: %__MODULE__{
          of: Attempt.of(),
          running: %{pid() => running()},
          holders: %{id() => pid()}
        }

  @spec new(Attempt.of()) :: t()
  def new(of), do: %__MODULE__{of: of}

  @doc "Whether a process is one of these."
  defguard is_attempt(attempts, pid) when is_map_key(attempts.running, pid)

  @spec get(t(), pid()) :: running()
  def get(attempts, pid), do: Map.fetch!(attempts.running, pid)

  @doc "Starts an attempt: in the process that holds the server, if one does."
  @spec start(t(), id(), Host.server(), Attempt.order()) :: t()
  def start(%{holders: holders} = attempts, id, _server, order) when is_map_key(holders, id) do
    Attempt.retry(holders[id], order)
    put(attempts, holders[id], order: order, phase: :attempting)
  end

  def start(attempts, id, server, order),
    do: track(attempts, id, :attempting, order, Attempt.start(attempts.of, server, order))

  @doc "Has the server's reservation cleared."
  @spec release(t(), id(), Host.server()) :: t()
  def release(%{holders: holders} = attempts, id, _server) when is_map_key(holders, id) do
    Attempt.release(holders[id])
    put(attempts, holders[id], phase: :releasing)
  end

  def release(attempts, id, server), do: attempts |> take_over(id, server, :displaced, nil) |> release(id, server)

  @doc "Notes that an attempt has ended with `outcome`. Its process ends as well, unless it holds the server."
  @spec attempted(t(), pid(), Native.outcome()) :: t()
  def attempted(attempts, pid, outcome) do
    case Attempt.phase_after(outcome) do
      nil -> forget(attempts, pid)
      phase -> put_in(put(attempts, pid, phase: phase).holders[get(attempts, pid).id], pid)
    end
  end

  @doc "Notes that a stopping server has stopped."
  @spec stopped(t(), pid()) :: t()
  def stopped(attempts, pid), do: put(attempts, pid, phase: :displaced)

  @doc "Has a new process take over from one that died."
  @spec replace(t(), pid(), Host.server()) :: t()
  def replace(attempts, pid, server) do
    %{id: id, order: order, phase: phase} = get(attempts, pid)
    attempts = forget(attempts, pid)
    # The dead process may not have cleared the reservation yet.
    if phase == :releasing, do: release(attempts, id, server), else: take_over(attempts, id, server, phase, order)
  end

  @doc """
  Makes the servers that have stopped for a silent target go to other targets. DurableServer would wait for
  that target.
  """
  @spec leave(t(), target :: String.t(), (id() -> Host.server())) :: t()
  def leave(attempts, target, server_of) do
    for {pid, %{phase: :attempting, order: %{target: ^target}} = running} <- attempts.running,
        server = server_of.(running.id),
        not Process.alive?(server.pid),
        reduce: attempts do
      attempts ->
        new = Attempt.leave_target(attempts.of, server, pid)
        attempts |> forget(pid) |> track(running.id, :leaving, running.order, new)
    end
  end

  @spec forget(t(), pid()) :: t()
  def forget(attempts, pid) do
    {%{id: id, monitor: monitor}, running} = Map.pop!(attempts.running, pid)
    Process.demonitor(monitor, [:flush])
    %{attempts | running: running, holders: Map.delete(attempts.holders, id)}
  end

  defp take_over(attempts, id, server, phase, order),
    do: track(attempts, id, phase, order, Attempt.replace(attempts.of, server, phase, order))

  defp track(attempts, id, phase, order, {pid, monitor}) do
    attempts = put_in(attempts.running[pid], %{id: id, order: order, phase: phase, monitor: monitor})
    if phase in [:attempting, :leaving], do: attempts, else: put_in(attempts.holders[id], pid)
  end

  defp put(attempts, pid, changes), do: update_in(attempts.running[pid], &Map.merge(&1, Map.new(changes)))
end
