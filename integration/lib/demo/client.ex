defmodule HandoffDemo.Client do
  @moduledoc """
  One client. It asks random servers to increment their counter, or only for its value: with `lookup` and
  `GenServer.call`, as application code does that knows nothing of moves, or with `DurableHandoff.call`. A
  failed call is counted and not repeated.

  With `sync_one_in: n` it requests for one in n increments that it be stored before the answer. A counter
  that was answered and then found in the store must never decrease.

  It calls at a fixed rate. If it paused after each answer instead, slow answers would mean fewer calls just
  when calls fail, and the worse mode would look better.
  """

  alias HandoffDemo.{Config, Server}

  @call_ms 5_000

  @opaque t :: pid()
  @typedoc """
  `:plain`: `lookup` and `GenServer.call`. `:handoff`: `DurableHandoff.call`, which waits for a server that
  moves.
  """
  @type how :: :plain | :handoff
  @typedoc """
  A call: when it began in microseconds of the wall clock (64 bits), how long it took (32), whether it was
  answered (8).
  """
  @type times :: iodata()
  @typedoc "`kept`: for each server the highest counter that was in the store when it was answered."
  @type tally :: %{outcomes: map(), acknowledged: map(), uncertain: map(), kept: map(), times: times()}
  @typedoc """
  What clients do: they call one of the servers `0..servers - 1` every `every_ms`. Calls of kind `:change`
  increment the counter, and request for one in `sync_one_in` that it be stored (0: for none). `stored` reads
  a counter from the store.
  Index 1 of `calls` counts answered calls, index 2 failed ones.
  """
  @type job :: %{
          how: how(),
          kind: :change | :read,
          servers: pos_integer(),
          every_ms: pos_integer(),
          sync_one_in: non_neg_integer(),
          stored: (non_neg_integer() -> non_neg_integer()),
          calls: :counters.counters_ref()
        }

  @doc "Starts a client."
  @spec start_link(job()) :: t()
  def start_link(job) do
    tally = %{outcomes: %{}, acknowledged: %{}, uncertain: %{}, kept: %{}, times: []}
    # Clients start at different moments.
    spawn_link(fn -> loop(job, tally, now_ms() + :rand.uniform(job.every_ms)) end)
  end

  @doc "Asks a client to stop; `await/1` returns its results."
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

  defp loop(job, tally, due_ms) do
    receive do
      {:stop, from, ref} -> send(from, {ref, tally})
    after
      max(due_ms - now_ms(), 0) ->
        index = :rand.uniform(job.servers) - 1
        at_us = :os.system_time(:microsecond)
        began_us = now_us()
        {outcome, answer} = call(job.how, Server.key(index), message(job))
        took_us = now_us() - began_us
        :counters.add(job.calls, if(outcome == "ok", do: 1, else: 2), 1)
        tally = tally |> count(index, outcome, job.kind) |> keep(index, answer, job) |> time(at_us, took_us, outcome)
        loop(job, tally, due_ms + job.every_ms)
    end
  end

  defp message(%{kind: :read}), do: :read
  defp message(%{sync_one_in: 0}), do: {:increment, false}
  defp message(%{sync_one_in: one_in}), do: {:increment, :rand.uniform(one_in) == 1}

  defp call(:plain, key, message) do
    case DurableServer.Supervisor.lookup(Config.supervisor(), key) do
      {pid, _meta} -> {"ok", GenServer.call(pid, message, @call_ms)}
      nil -> {"not_found", nil}
    end
  catch
    :exit, {reason, {GenServer, :call, _arguments}} -> {outcome(reason), nil}
  end

  defp call(:handoff, key, message) do
    case DurableHandoff.call(Config.supervisor(), key, message, timeout: @call_ms) do
      {:ok, answer} -> {"ok", answer}
      {:error, reason} -> {outcome(reason), nil}
    end
  end

  defp outcome(:no_owner), do: "not_found"
  defp outcome(:noproc), do: "noproc"
  defp outcome(:timeout), do: "timeout"
  defp outcome(stopped) when stopped in [:normal, :shutdown], do: "stopped"
  defp outcome({:shutdown, _reason}), do: "stopped"
  defp outcome(:noconnection), do: "nodedown"
  defp outcome({:nodedown, _node}), do: "nodedown"
  defp outcome(_crash), do: "other"

  defp count(tally, index, outcome, kind) do
    tally = %{tally | outcomes: bump(tally.outcomes, outcome)}

    case outcome do
      _any when kind == :read -> tally
      "ok" -> %{tally | acknowledged: bump(tally.acknowledged, index)}
      # No process existed that could apply the increment.
      none when none in ["not_found", "noproc"] -> tally
      # The server may have counted the increment and ended, or lost its connection, before its answer
      # arrived.
      _open -> %{tally | uncertain: bump(tally.uncertain, index)}
    end
  end

  # Some versions of DurableServer answer although the store did not take the write, so the store is asked.
  defp keep(tally, index, {counter, true}, %{sync_one_in: one_in} = job) when one_in > 0 do
    if job.stored.(index) >= counter,
      do: %{tally | kept: Map.update(tally.kept, index, counter, &max(&1, counter))},
      else: tally
  end

  defp keep(tally, _index, _answer, _job), do: tally

  defp time(tally, at_us, took_us, outcome) do
    answered = if outcome == "ok", do: 1, else: 0
    %{tally | times: [tally.times | <<at_us::64, min(took_us, 0xFFFFFFFF)::32, answered::8>>]}
  end

  defp now_us, do: System.monotonic_time(:microsecond)
  defp now_ms, do: System.monotonic_time(:millisecond)
  defp bump(counts, key), do: Map.update(counts, key, 1, &(&1 + 1))
end
