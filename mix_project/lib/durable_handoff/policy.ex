defmodule DurableHandoff.Policy do
  @moduledoc """
  Which servers a drain moves, and which of them first.

  Guarantee: a broken policy excludes nothing. A function that raises or returns anything other than `true`,
  `false` or a priority, and a malformed `handoff` entry of a server, are reported in the log and count as
  absent: a server moved needlessly costs a moment, one left behind by mistake can be down for a minute. So does a
  function for the servers that it has not decided after a quarter of `timeout_ms`.

  The first of these that applies to a server decides:

    1. the server itself: `init` returned `meta: %{handoff: false}` (stays) or
       `meta: %{handoff: [priority: 5]}` (moves);
    2. `modules`: `%{Mod => false}` (stays); `%{Mod => [priority: 10]}` sets the priority of the servers of
       `Mod`;
    3. `eligible`.

  Servers of a higher priority move first; without one it is 0. A server that is busy for more than half a second
  when a drain begins moves after all others.

  `eligible: :permanent` reads from the store whether each server that 1 and 2 leave open is permanent: one
  read for each, at most `max_concurrency` at a time, for at most a quarter of `timeout_ms`. A server whose
  answer did not come in time counts as permanent.
  """

  alias DurableHandoff.{Apart, Clock, Options}

  @type server :: %{:module => module(), :key => term(), :meta => term(), optional(atom()) => term()}
  @type decision :: {:move, priority :: integer()} | {:ask_store, priority :: integer()} | :stay

  @doc """
  The decision about one server, and what is wrong with the policy, or nil.

      iex> options = DurableHandoff.Options.new!(modules: %{MyApp.Cache => false})
      iex> DurableHandoff.Policy.decide(%{module: MyApp.Cache, key: "c", meta: %{}}, options)
      {:stay, nil}
      iex> DurableHandoff.Policy.decide(%{module: MyApp.Cache, key: "c", meta: %{handoff: [priority: 5]}}, options)
      {{:move, 5}, nil}
  """
  @spec decide(server(), Options.t()) :: {decision(), nil | String.t()}
  def decide(server, %Options{} = options) do
    by_module = by_module(Map.get(options.modules, server.module, true))

    case meta_policy(server.meta) do
      :none ->
        by_options(by_module, options.eligible, server)

      {:malformed, entry} ->
        {decision, _problem} = by_options(by_module, options.eligible, server)
        {decision, "its meta has handoff: #{inspect(entry, limit: 5)}, expected true, false or [priority: integer]"}

      :stay ->
        {:stay, nil}

      {:move, nil} ->
        {{:move, priority(by_module)}, nil}

      {:move, priority} ->
        {{:move, priority}, nil}
    end
  end

  @doc false
  # `decide/2` for each server, within `limit_ms`.
  @spec decide_each([server()], Options.t(), limit_ms :: pos_integer()) :: [{server(), {decision(), nil | String.t()}}]
  def decide_each(servers, %Options{eligible: eligible} = options, limit_ms) when is_function(eligible, 1) do
    until_us = Clock.after_ms(limit_ms)
    for server <- servers, do: {server, decide_by(until_us, server, options)}
  end

  def decide_each(servers, options, _limit_ms), do: for(server <- servers, do: {server, decide(server, options)})

  # In a process of its own, because the function is the user's and may wait.
  defp decide_by(until_us, server, options) do
    with left_ms when left_ms > 0 <- Clock.until_ms(until_us),
         {:ok, decided} <- Apart.run(fn -> decide(server, options) end, left_ms) do
      decided
    else
      _late ->
        {decision, _problem} = decide(server, %{options | eligible: :all})
        {decision, "eligible gave no answer in time"}
    end
  end

  defp meta_policy(%{handoff: false}), do: :stay
  defp meta_policy(%{handoff: entry}) when entry in [true, nil, []], do: {:move, nil}

  defp meta_policy(%{handoff: entry}) do
    with [priority: priority] <- entry, true <- Options.priority?(priority) do
      {:move, priority}
    else
      _other -> {:malformed, entry}
    end
  end

  defp meta_policy(_meta), do: :none

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
