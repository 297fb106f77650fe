defmodule DurableHandoff.Policy do
  @moduledoc """
  Which servers a drain moves, and which of them first.

  Guarantee: a policy that is broken excludes nothing. A function that raises or returns something else than `true`, `false` or a
  priority, and a server with a malformed `handoff` entry, are reported in the log, and the server is treated as if they
  were absent: a server moved needlessly costs a moment, one left behind by mistake can be down for a minute.

  The first of these that has something to say decides:

    1. the server itself: `init` returned `meta: %{handoff: false}` (stays) or `meta: %{handoff: [priority: 5]}` (moves);
    2. `modules`: `%{Mod => false}` (stays); `%{Mod => [priority: 10]}` sets the priority of the servers of `Mod`;
    3. `eligible`.

  Servers of a higher priority move first; without one it is 0.

  `eligible: :permanent` asks the store about each server that 1 and 2 leave open, because whether a server is permanent is
  known only there: one read for each, at most `max_concurrency` at a time, for at most a quarter of `timeout_ms`. A server
  whose answer did not come in time counts as permanent.
  """

  alias DurableHandoff.Options

  @type server :: %{:module => module(), :key => term(), :meta => term(), optional(atom()) => term()}
  @type decision :: {:move, priority :: integer()} | {:ask_store, priority :: integer()} | :stay

  @doc """
  The decision about one server, and what was wrong with the policy (nil: nothing).

      iex> options = DurableHandoff.Options.new!(modules: %{MyApp.Cache => false})
      iex> DurableHandoff.Policy.decide(%{module: MyApp.Cache, key: "c", meta: %{}}, options)
      {:stay, nil}
      iex> DurableHandoff.Policy.decide(%{module: MyApp.Cache, key: "c", meta: %{handoff: [priority: 5]}}, options)
      {{:move, 5}, nil}
  """
  @spec decide(server(), Options.t()) :: {decision(), nil | String.t()}
  def decide(server, %Options{} = options) do
    by_module = by_module(Map.get(options.modules, server.module, true))

    case own_word(server.meta) do
      :none ->
        by_options(by_module, options.eligible, server)

      {:malformed, entry} ->
        {decision, _problem} = by_options(by_module, options.eligible, server)
        {decision, "its meta says handoff: #{inspect(entry, limit: 5)}, expected true, false or [priority: integer]"}

      :stay ->
        {:stay, nil}

      {:move, nil} ->
        {{:move, priority(by_module)}, nil}

      {:move, priority} ->
        {{:move, priority}, nil}
    end
  end

  defp own_word(%{handoff: false}), do: :stay
  defp own_word(%{handoff: entry}) when entry in [true, nil, []], do: {:move, nil}

  defp own_word(%{handoff: entry}) do
    with [priority: priority] <- entry, true <- Options.priority?(priority) do
      {:move, priority}
    else
      _other -> {:malformed, entry}
    end
  end

  defp own_word(_meta), do: :none

  defp by_module(false), do: :stay
  defp by_module(true), do: {:move, 0}
  defp by_module(policy), do: {:move, Keyword.get(policy, :priority, 0)}

  defp priority({:move, priority}), do: priority
  defp priority(:stay), do: 0

  defp by_options(:stay, _eligible, _server), do: {:stay, nil}
  defp by_options(move, :all, _server), do: {move, nil}
  defp by_options({:move, priority}, :permanent, _server), do: {{:ask_store, priority}, nil}

  defp by_options({:move, priority} = move, eligible, server) when is_function(eligible, 1) do
    case eligible.(Map.take(server, [:key, :module, :meta])) do
      true ->
        {move, nil}

      false ->
        {:stay, nil}

      answer ->
        if Options.priority?(answer),
          do: {{:move, answer}, nil},
          else: {move, "eligible returned #{inspect(answer, limit: 5)}, expected true, false or a priority"}
    end
  catch
    kind, reason -> {{:move, priority}, "eligible failed: " <> Exception.format_banner(kind, reason, __STACKTRACE__)}
  end
end
