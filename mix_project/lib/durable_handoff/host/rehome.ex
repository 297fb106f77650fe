defmodule DurableHandoff.Host.Rehome do
  @moduledoc """
  One rehome, and what became of the server.

  Guarantees: never raises; ends with an outcome the engine knows; a server that is down and reserved for this node is always reported
  `{:displaced, _}` or `:retry_same`, so that whoever called knows it has something to give back; nothing is stopped for a target that is
  not connected.

  It blocks for as long as the host takes (stop, final write, one read, one remote start), plus at most about a second to see
  what became of a server whose answer was ambiguous.
  """

  alias DurableHandoff.{Host, Native}
  alias DurableHandoff.Host.Outcome

  # A remote start whose answer was lost usually shows up within a few round trips or not at all; every look is a local one.
  @look_every_ms 50
  @looks 20
  @patience_ms 1_000

  @type state :: :running | :displaced
  @type why :: Outcome.answer() | :not_connected | :not_running

  @doc """
  Moves `server`, which runs here (`:running`) or was displaced by an earlier attempt (`:displaced`), to the node named
  `target`.

  Returns the outcome and, unless it simply moved, why.
  """
  @spec run(Host.name(), Host.server(), state(), String.t(), pos_integer()) :: {Native.outcome(), nil | why()}
  def run(name, server, state, target, timeout_ms) do
    case {connected(target), state} do
      {nil, :running} ->
        {:untouched, :not_connected}

      {nil, :displaced} ->
        {{:displaced, :target}, :not_connected}

      {node, _state} ->
        if state == :running and not Process.alive?(server.pid),
          do: {settle(:stopped_by_itself, name, server, node), :not_running},
          else: name |> Host.rehome_child(server, node, timeout_ms) |> meaning(name, server, node) |> as_before(state)
    end
  end

  # "Nothing happened" to a server that an earlier attempt stopped leaves it stopped.
  defp as_before({:untouched, why}, :displaced), do: {{:displaced, :unknown}, why}
  defp as_before(result, _state), do: result

  @doc """
  The outcome for a server whose attempt ended without an answer: looks where it is now. If it is displaced nobody is to blame:
  the same target again.
  """
  @spec look(Host.name(), Host.server(), String.t()) :: Native.outcome()
  def look(name, server, target) do
    with {:displaced, _blame} <- settle({:displaced, :unknown}, name, server, connected(target)), do: :retry_same
  end

  # The atom of a connected node exists; a name without one is nobody we could reach.
  defp connected(target) do
    node = String.to_existing_atom(target)
    if node in Node.list(:connected), do: node
  rescue
    ArgumentError -> nil
  end

  defp meaning(answer, name, server, target) do
    case Outcome.classify(answer, server.pid, target) do
      {:look, question} -> {settle(question, name, server, target), answer}
      {:moved, nil} -> {{:moved, nil}, nil}
      outcome -> {outcome, answer}
    end
  end

  defp settle({:runs_as, pid}, _name, _server, target) do
    case alive(pid) do
      true when node(pid) == node() -> :untouched
      true when node(pid) == target -> {:moved, nil}
      true -> {:moved, Atom.to_string(node(pid))}
      # A registry that still names a dead process: the same as not having heard of the stop.
      false -> :retry_same
      :unknown -> {:displaced, :target}
    end
  end

  # It was on its way out when we asked. Only the store knows whether our reservation went in before that.
  defp settle(:stopped_by_itself, name, server, _target) do
    if down_soon?(server.pid) do
      case {Host.lookup(name, server.key), Host.reserved?(Host.storage(name), server.key)} do
        {{:elsewhere, _pid}, _reserved} -> :lost_race
        {_nowhere, {:ok, true}} -> {:displaced, :unknown}
        {_nowhere, {:ok, false}} -> :gone
        {_nowhere, {:error, _reason}} -> {:displaced, :store}
      end
    else
      :stopping
    end
  end

  defp settle(:reservation_lost, name, server, _target) do
    case Host.lookup(name, server.key) do
      {:elsewhere, _pid} -> :lost_race
      _nowhere -> if Host.release(Host.storage(name), server.key) == :ok, do: :lost_race, else: {:displaced, :store}
    end
  end

  defp settle(:may_come_up, name, server, target), do: await_start(name, server, target, @looks)

  defp settle({:displaced, blame}, name, server, target) do
    if Process.alive?(server.pid) do
      :untouched
    else
      case Host.lookup(name, server.key) do
        {:elsewhere, pid} when node(pid) == target -> {:moved, nil}
        {:elsewhere, pid} -> {:moved, Atom.to_string(node(pid))}
        {:here, pid} when pid != server.pid -> :untouched
        _nowhere -> {:displaced, blame}
      end
    end
  end

  defp await_start(name, server, target, looks) do
    case settle({:displaced, :target}, name, server, target) do
      {:displaced, :target} when looks > 1 ->
        Process.sleep(@look_every_ms)
        await_start(name, server, target, looks - 1)

      outcome ->
        outcome
    end
  end

  defp down_soon?(pid) do
    monitor = Process.monitor(pid)

    receive do
      {:DOWN, ^monitor, :process, _pid, _reason} -> true
    after
      @patience_ms -> Process.demonitor(monitor, [:flush]) && false
    end
  end

  defp alive(pid) when node(pid) == node(), do: Process.alive?(pid)

  defp alive(pid) do
    :erpc.call(node(pid), Process, :alive?, [pid], @patience_ms)
  catch
    _kind, _reason -> :unknown
  end
end
