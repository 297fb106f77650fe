defmodule HandoffDemo.Client do
  @moduledoc """
  One client: looks a random server up and asks it to increment its counter, as application code does without any knowledge of moves.
  A failed call is counted and not repeated.

  It calls at a fixed rate, not so long after each answer: else a slow answer, or a busy machine, would mean fewer calls just when
  calls fail, and the worse mode would look better.
  """

  alias HandoffDemo.{Config, Server}

  @every_ms 10
  @call_ms 5_000

  @opaque t :: pid()
  @type tally :: %{outcomes: map(), acknowledged: map(), uncertain: map()}

  @doc "Starts a client of servers `0..servers - 1` that counts answered calls at 1 and failed ones at 2 of `calls`."
  @spec start_link(pos_integer(), :counters.counters_ref()) :: t()
  def start_link(servers, calls) do
    tally = %{outcomes: %{}, acknowledged: %{}, uncertain: %{}}
    # Not all clients at the same moment.
    spawn_link(fn -> loop(servers, calls, tally, now_ms() + :rand.uniform(@every_ms)) end)
  end

  @doc "Asks a client to stop; `await/1` gives its tally."
  @spec ask_to_stop(t()) :: {t(), reference()}
  def ask_to_stop(client) do
    ref = make_ref()
    send(client, {:stop, self(), ref})
    {client, ref}
  end

  @spec await({t(), reference()}) :: tally()
  def await({_client, ref}) do
    receive do
      {^ref, tally} -> tally
    end
  end

  defp loop(servers, calls, tally, due_ms) do
    receive do
      {:stop, from, ref} -> send(from, {ref, tally})
    after
      max(due_ms - now_ms(), 0) ->
        index = :rand.uniform(servers) - 1
        outcome = increment(index)
        :counters.add(calls, if(outcome == "ok", do: 1, else: 2), 1)
        loop(servers, calls, count(tally, index, outcome), due_ms + @every_ms)
    end
  end

  defp increment(index) do
    case DurableServer.Supervisor.lookup(Config.supervisor(), Server.key(index)) do
      {pid, _meta} ->
        GenServer.call(pid, :increment, @call_ms)
        "ok"

      nil ->
        "not_found"
    end
  catch
    :exit, {reason, {GenServer, :call, _arguments}} -> outcome(reason)
  end

  defp outcome(:noproc), do: "noproc"
  defp outcome(:timeout), do: "timeout"
  defp outcome(stopped) when stopped in [:normal, :shutdown], do: "stopped"
  defp outcome({:shutdown, _reason}), do: "stopped"
  defp outcome(:noconnection), do: "nodedown"
  defp outcome({:nodedown, _node}), do: "nodedown"
  defp outcome(_crash), do: "other"

  defp count(tally, index, outcome) do
    tally = %{tally | outcomes: bump(tally.outcomes, outcome)}

    case outcome do
      "ok" -> %{tally | acknowledged: bump(tally.acknowledged, index)}
      # Nobody was there to apply it.
      nobody when nobody in ["not_found", "noproc"] -> tally
      # The server may have counted it and ended, or been cut off, before its answer was here.
      _open -> %{tally | uncertain: bump(tally.uncertain, index)}
    end
  end

  defp now_ms, do: System.monotonic_time(:millisecond)
  defp bump(counts, key), do: Map.update(counts, key, 1, &(&1 + 1))
end
