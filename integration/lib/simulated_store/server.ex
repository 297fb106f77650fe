defmodule SimulatedStore.Server do
  @moduledoc """
  The process of a `SimulatedStore`. A request may be held (paused), then waits for a slot, is served for the
  latency, and is answered. The process uses timers and never blocks.
  """

  use GenServer

  alias SimulatedStore.{Objects, Stats}

  @settings [latency_ms: 0, slots: :infinity, error_rate: 0.0, outage: :none]

  @enforce_keys [:settings, :random, :objects, :stats]
  defstruct @enforce_keys ++ [serving: 0, waiting: :queue.new(), matchers: [], held: [], failures: []]

  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(opts) do
    opts = Keyword.validate!(opts, [{:name, SimulatedStore}, {:seed, 0} | @settings])
    GenServer.start_link(__MODULE__, opts, name: opts[:name])
  end

  @impl true
  def init(opts) do
    {:ok,
     %__MODULE__{
       settings: opts |> Keyword.take(Keyword.keys(@settings)) |> Map.new(),
       random: :rand.seed_s(:exsss, opts[:seed]),
       objects: Objects.new(),
       stats: Stats.new()
     }}
  end

  @impl true
  def handle_call({:request, :ping}, _from, state), do: {:reply, :pong, state}

  def handle_call({:request, {op, key, _arg} = request}, from, state) do
    job = {from, request}

    if Enum.any?(state.matchers, &matches?(&1, op, key)),
      do: {:noreply, %{state | held: state.held ++ [job]}},
      else: {:noreply, admit(job, state)}
  end

  def handle_call({:configure, settings}, _from, state) do
    settings = Keyword.validate!(settings, Keyword.keys(@settings))
    state = %{state | settings: Map.merge(state.settings, Map.new(settings))}
    {:reply, :ok, serve_waiting(state)}
  end

  def handle_call(:stats, _from, state),
    do: {:reply, Map.put(Stats.shown(state.stats), :in_flight, state.serving), state}

  def handle_call(:reset_stats, _from, state),
    do: {:reply, :ok, %{state | stats: Stats.new(state.serving, state.serving + :queue.len(state.waiting))}}

  def handle_call({:pause, matcher}, _from, state), do: {:reply, :ok, %{state | matchers: [matcher | state.matchers]}}
  def handle_call(:paused, _from, state), do: {:reply, for({_from, {op, key, _}} <- state.held, do: {op, key}), state}

  def handle_call({:step, matcher}, _from, state) do
    case Enum.find(state.held, fn {_from, {op, key, _arg}} -> matches?(matcher, op, key) end) do
      nil -> {:reply, {:error, :none}, state}
      job -> {:reply, :ok, admit(job, %{state | held: List.delete(state.held, job)})}
    end
  end

  def handle_call(:resume, _from, state),
    do: {:reply, :ok, Enum.reduce(state.held, %{state | held: [], matchers: []}, &admit/2)}

  def handle_call({:fail_next, op, key, error}, _from, state),
    do: {:reply, :ok, %{state | failures: state.failures ++ [{op, key, error}]}}

  def handle_call({:peek, key}, _from, state), do: {:reply, state.objects.by_key[key], state}
  def handle_call(:keys, _from, state), do: {:reply, state.objects.by_key |> Map.keys() |> Enum.sort(), state}

  @impl true
  def handle_info({:served, job}, state), do: {:noreply, finish(job, state)}

  defp admit(job, state) do
    state = %{state | stats: Stats.arrived(state.stats)}

    if state.serving < state.settings.slots,
      do: serve(job, state),
      else: %{state | waiting: :queue.in(job, state.waiting)}
  end

  defp serve(job, state) do
    serving = state.serving + 1
    state = %{state | serving: serving, stats: Stats.serving(state.stats, serving)}

    case state.settings.latency_ms do
      0 ->
        finish(job, state)

      latency_ms ->
        Process.send_after(self(), {:served, job}, latency_ms)
        state
    end
  end

  defp finish({from, request}, state) do
    {answer, state} = answer(request, from, state)
    GenServer.reply(from, answer)
    state = %{state | serving: state.serving - 1, stats: Stats.answered(state.stats, request, answer)}
    serve_waiting(state)
  end

  defp serve_waiting(state) do
    with true <- state.serving < state.settings.slots,
         {{:value, job}, waiting} <- :queue.out(state.waiting) do
      serve_waiting(serve(job, %{state | waiting: waiting}))
    else
      _full_or_idle -> state
    end
  end

  defp answer({op, key, _arg} = request, from, state) do
    {roll, random} = :rand.uniform_s(state.random)
    state = %{state | random: random}

    case Enum.find(state.failures, fn {failing, where, _error} -> failing == op and where in [:any, key] end) do
      {_op, _key, error} = failure ->
        {{:error, error}, %{state | failures: List.delete(state.failures, failure)}}

      nil when roll < state.settings.error_rate ->
        {{:error, :simulated}, state}

      nil ->
        if out?(state.settings.outage, op, from) do
          {{:error, :unavailable}, state}
        else
          {answer, objects} = Objects.apply(state.objects, request)
          {answer, %{state | objects: objects}}
        end
    end
  end

  defp out?(:none, _op, _from), do: false
  defp out?(:all, _op, _from), do: true
  defp out?(:writes, op, _from), do: op in [:put, :claim, :delete]
  defp out?({:node, node}, _op, {pid, _tag}), do: node(pid) == node

  defp matches?(:all, _op, _key), do: true
  defp matches?({op, key}, op, key), do: true
  defp matches?(fun, op, key) when is_function(fun, 2), do: fun.(op, key)
  defp matches?(matcher, _op, key), do: matcher == key
end
