defmodule DurableHandoff.Drainer do
  @moduledoc """
  Drains a supervisor when it is stopped.

  `DurableHandoff.Supervisor` starts one. For a `DurableServer.Supervisor` that is already in a supervision tree,
  put one right after it:

      children = [
        {DurableServer.Supervisor, name: MyApp.Durable, prefix: "myapp/", backend: backend},
        {DurableHandoff.Drainer, supervisor: MyApp.Durable, handoff_on_shutdown: [timeout_ms: 30_000]}
      ]

  A supervisor stops its children last to first, so the Drainer drains while everything before it still runs. A
  node whose supervisor has only a Drainer works as source and as target, but tells the other nodes neither its
  release nor its load between two drains.

  ## Guarantees

    * It delays a shutdown by at most `timeout_ms`, whatever fails, and does not crash because a drain did. With
      `shutdown_budget_ms` it leaves enough time for the graceful shutdown after it.
    * Only a shutdown drains. When a Drainer crashes, or is stopped for another reason, nothing moves.
    * One drain at a time. `DurableHandoff.drain/2` and a shutdown that find one running wait for it. A shutdown
      then drains what stayed, or was started since. Both end a rebalance, and wait up to a second for its moves in
      flight.
    * After `DurableHandoff.cancel/1` a drain ends as soon as the moves in flight have settled; one that waits behind
      a rebalance moves nothing. A shutdown starts no other one after it.

  ## Processes

  ```text
  Supervisor       started by start_link/1
  ├── Leftovers    unless `start_leftovers: false`; stopped last
  ├── Cordon       cordons this node, and takes that back
  ├── Drainer      one drain at a time, for callers and for the shutdown
  │   ├─ Storing   has the servers store their state, from SIGTERM on or when a drain starts
  │   └─ Drain     one drain. Neither is linked to the Drainer: they settle what they have begun
  ├── Watch        with the option `rebalance`: moves what is above this node's share when nothing changes any more
  └── Shutdown     stopped first: its terminate/2 asks the Drainer to drain, and waits
  ```
  """

  use GenServer

  alias DurableHandoff.{
    Clock,
    Cordon,
    Deadline,
    Drain,
    Host,
    Leftovers,
    Log,
    Native,
    Options,
    Schema,
    Status,
    Telemetry
  }

  alias DurableHandoff.Drain.Storing
  alias DurableHandoff.Drainer.Shutdown
  alias DurableHandoff.Host.Mark
  alias DurableHandoff.Rebalance.Watch

  # How long moves of a rebalance that are in flight may hold up what comes after it.
  @settle_ms 1_000

  @enforce_keys [:supervisor, :options, :status]
  defstruct @enforce_keys ++
              [:storing, :drain, :kind, :shutdown, :next, waiting: [], cancelled?: false]

  @doc """
  Starts a Drainer. Options: `:supervisor`, the name of the `DurableServer.Supervisor`, and `:handoff_on_shutdown`
  (`DurableHandoff.Options`). Raises `ArgumentError` when one is wrong.
  """
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(arguments) do
    case arguments!(arguments) do
      {_supervisor, :disabled} ->
        :ignore

      {supervisor, options} ->
        Host.ensure_loaded!()
        Host.started!(supervisor)
        with {:error, error} <- Native.check(), do: raise(error)
        Host.Version.check!()
        Host.Version.announce(supervisor)
        warn_without_application(supervisor)
        leftovers = if options.start_leftovers, do: [{Leftovers, {supervisor, options}}], else: []

        work = %{prepare: fn -> prepare(supervisor) end, drain: &drain_for_shutdown(supervisor, &1)}

        rebalance = if options.rebalance, do: [watch(supervisor, options)], else: []

        children =
          leftovers ++
            [{Cordon, supervisor}, worker(supervisor, options)] ++
            rebalance ++ [{Shutdown, {supervisor, options, work}}]

        Supervisor.start_link(children, strategy: :one_for_one, name: :"#{supervisor}_handoff")
    end
  end

  defp watch(supervisor, options) do
    {drain, settings} = Options.rebalance(options, [])
    {Watch, {supervisor, settings.after_ms, fn -> rebalance(supervisor, drain, settings, true) end}}
  end

  defp worker(supervisor, options) do
    %{
      id: __MODULE__,
      start: {GenServer, :start_link, [__MODULE__, {supervisor, options}, [name: name(supervisor)]]},
      # It has no terminate/2, so only a Drainer that hangs takes time.
      shutdown: Deadline.answer_ms(),
      modules: [__MODULE__]
    }
  end

  # As a dependency with `runtime: false`, or in a release that leaves it out.
  defp warn_without_application(supervisor) do
    if Process.whereis(DurableHandoff.TopSupervisor) == nil do
      text =
        "the application :durable_handoff does not run: SIGTERM is not noticed, prepare_stop/0 marks nothing, and no " <>
          "Rust node can coordinate the drains of this node"

      Log.warning(:application_not_started, supervisor, text)
    end
  end

  @doc "A child of a supervision tree. Its supervisor gives it `timeout_ms` to drain."
  @spec child_spec(keyword()) :: Supervisor.child_spec()
  def child_spec(arguments) do
    {supervisor, options} = arguments!(arguments)
    timeout_ms = if options == :disabled, do: 0, else: options.timeout_ms

    %{
      id: {__MODULE__, supervisor},
      start: {__MODULE__, :start_link, [[supervisor: supervisor, handoff_on_shutdown: options]]},
      type: :supervisor,
      shutdown: Deadline.child_ms(timeout_ms, :outer)
    }
  end

  @doc false
  # Drains now, or waits for the drain that runs. `options` count only for a drain that this call starts.
  @spec drain(Host.name(), Options.t()) :: Drain.result() | {:error, :no_drainer | {:drain_failed, term()} | :overdue}
  def drain(supervisor, %Options{} = options) do
    GenServer.call(name(supervisor), {:drain, options}, :infinity)
  catch
    :exit, {_reason, {GenServer, :call, _arguments}} -> {:error, :no_drainer}
  end

  @doc false
  # Starts a drain and returns at once: `:started`, or `:joined` when one runs already.
  @spec start_drain(Host.name(), Options.t()) :: {:ok, :started | :joined} | {:error, :no_drainer}
  def start_drain(supervisor, %Options{} = options), do: call(supervisor, {:start_drain, options})

  @doc false
  # Moves what is above this node's share, or waits for the rebalance that runs. `await?: false`: returns at once.
  @spec rebalance(Host.name(), Options.t(), Options.rebalance(), await? :: boolean()) ::
          Drain.result()
          | {:ok, :started | :joined}
          | {:error, :draining | :cordoned | :stopping | :overdue | :no_drainer | {:drain_failed, term()}}
  def rebalance(supervisor, %Options{} = options, settings, await?),
    do: call(supervisor, {:rebalance, options, settings, await?})

  @doc false
  # Ends the drain or rebalance that runs, and a drain that waits behind a rebalance.
  @spec cancel(Host.name()) :: :ok | {:error, :not_draining | :no_drainer}
  def cancel(supervisor), do: call(supervisor, :cancel)

  @doc false
  # Has all servers store their state from now on: this node is about to stop. Returns at once.
  @spec prepare(Host.name()) :: :ok
  def prepare(supervisor), do: GenServer.cast(name(supervisor), :prepare)

  # Returns when the shutdown may go on: by `deadline`, whatever happens.
  defp drain_for_shutdown(supervisor, deadline) do
    GenServer.call(name(supervisor), {:shutdown, deadline}, Deadline.answer_ms(deadline, Clock.now_us()))
  catch
    :exit, {reason, {GenServer, :call, _arguments}} -> announce(supervisor, {:error, {:drain_failed, reason}})
  end

  defp call(supervisor, request) do
    # It answers between two messages. After a timeout it would be unknown what became of the request.
    GenServer.call(name(supervisor), request, :infinity)
  catch
    :exit, {_reason, {GenServer, :call, _arguments}} -> {:error, :no_drainer}
  end

  @impl true
  def init({supervisor, options}) do
    {:ok, %__MODULE__{supervisor: supervisor, options: options, status: Status.new(supervisor, options)}}
  end

  @impl true
  def handle_call({:drain, options}, from, %{kind: :rebalance} = state),
    do: {:noreply, after_rebalance(state, options, [from])}

  def handle_call({:drain, options}, from, state) do
    state = ensure_draining(state, options, asked_for(options), :request)
    {:noreply, put_waiting(state, [from | state.waiting])}
  end

  def handle_call({:start_drain, options}, _from, %{kind: :rebalance} = state) do
    answer = if state.next == nil and state.shutdown == nil, do: :started, else: :joined
    {:reply, {:ok, answer}, after_rebalance(state, options, [])}
  end

  def handle_call({:rebalance, options, settings, await?}, from, state) do
    answer = if state.drain == nil, do: :started, else: :joined

    case refusal(state) do
      nil ->
        state = ensure_rebalancing(state, options, settings)
        if await?, do: {:noreply, wait_for_rebalance(state, from)}, else: {:reply, {:ok, answer}, state}

      reason ->
        {:reply, {:error, reason}, state}
    end
  end

  def handle_call({:start_drain, options}, _from, state) do
    answer = if state.drain == nil, do: :started, else: :joined
    # Before the answer: a caller that asks status/1 next sees this drain, not the one before.
    {:reply, {:ok, answer}, ensure_draining(state, options, asked_for(options), :request)}
  end

  def handle_call(:cancel, _from, %{drain: nil} = state), do: {:reply, {:error, :not_draining}, state}

  def handle_call(:cancel, _from, %{drain: {pid, _monitor}, kind: :rebalance} = state) do
    Drain.cancel(pid, :request)
    {:reply, :ok, cancel_next(state)}
  end

  def handle_call(:cancel, _from, %{drain: {pid, _monitor}} = state) do
    announce_cancel(state)
    Drain.cancel(pid, if(state.shutdown, do: :shutdown, else: :request))
    {:reply, :ok, %{state | cancelled?: state.shutdown != nil}}
  end

  def handle_call({:shutdown, deadline}, from, %{drain: earlier} = state) do
    Telemetry.shutdown_start(state.supervisor, deadline)
    Status.put_marked(state.supervisor)
    state = %{state | shutdown: %{from: from, deadline: deadline, again?: state.kind == :drain}}

    {:noreply,
     cond do
       earlier == nil -> start_for_shutdown(state)
       state.kind == :rebalance -> state |> put_draining() |> end_rebalance()
       true -> join_for_shutdown(state, deadline)
     end}
  end

  @impl true
  # Of a node that is about to stop nothing more is moved for balance.
  def handle_cast(:prepare, %{drain: drain, kind: kind, options: options} = state)
      when drain == nil or kind == :rebalance do
    state = ensure_storing(if drain, do: end_rebalance(state), else: state)
    Storing.ask(state.storing, Deadline.prepared_us(Clock.now_us(), options.shutdown_budget_ms, options.timeout_ms))
    {:noreply, state}
  end

  # A drain is running: it has already asked the servers to store their states.
  def handle_cast(:prepare, state), do: {:noreply, state}

  @impl true
  def handle_info({:drained, pid, result}, %{drain: {pid, monitor}} = state) do
    Process.demonitor(monitor, [:flush])
    {:noreply, ended(state, result)}
  end

  def handle_info({:DOWN, monitor, :process, pid, reason}, %{drain: {pid, monitor}} = state),
    do: {:noreply, ended(state, {:error, {:drain_failed, reason}})}

  def handle_info({:DOWN, monitor, :process, _pid, _crashed}, %{storing: %{monitor: monitor}} = state),
    do: {:noreply, stop_storing(state)}

  # Its attempts settle what they have begun; this process does not wait for that.
  def handle_info({:let_go, pid}, %{drain: {pid, monitor}} = state) do
    Process.demonitor(monitor, [:flush])
    {:noreply, ended(state, {:error, :overdue})}
  end

  def handle_info({:cancel, pid}, %{drain: {pid, _monitor}} = state) do
    Drain.cancel(pid, :shutdown)
    {:noreply, state}
  end

  def handle_info({:give_up, pid}, %{drain: {pid, _monitor}} = state), do: {:noreply, ended(state, {:error, :overdue})}
  def handle_info(_unknown, state), do: {:noreply, state}

  # A drain that was started with a later limit is told to end in time for this one.
  defp join_for_shutdown(%{drain: {pid, _monitor}} = state, deadline) do
    send_at(Deadline.cancel_us(deadline), {:cancel, pid})
    send_at(deadline.end_us, {:give_up, pid})
    state
  end

  # No time is left: a drain would only delay the shutdown.
  defp start_for_shutdown(%{shutdown: %{deadline: deadline}} = state) do
    now = Clock.now_us()

    if now < deadline.end_us do
      %{drain: {pid, _monitor}} = state = ensure_draining(state, state.options, %{deadline | begin_us: now}, :shutdown)
      send_at(deadline.end_us, {:give_up, pid})
      state
    else
      # Those that waited behind a rebalance.
      Enum.each(state.waiting, &GenServer.reply(&1, {:error, :overdue}))
      let_shutdown_go_on(put_waiting(state, []))
    end
  end

  defp let_shutdown_go_on(%{shutdown: %{from: from}} = state) do
    GenServer.reply(from, :ok)
    state
  end

  defp send_at(instant_us, message),
    do: Process.send_after(self(), message, Deadline.until_ms(instant_us, Clock.now_us()))

  defp asked_for(options), do: Deadline.drain(Clock.now_us(), options.timeout_ms)

  defp ensure_rebalancing(%{drain: nil, supervisor: supervisor} = state, options, settings) do
    Status.put_rebalancing(state.status)
    deadline = asked_for(options)
    drain = Drain.start(supervisor, options, deadline, {:rebalance, settings}, state.status, nil)
    %{state | drain: drain, kind: :rebalance}
  end

  defp ensure_rebalancing(state, _options, _settings), do: state

  # Why no rebalance may start or be joined now.
  defp refusal(%{supervisor: supervisor} = state) do
    cond do
      state.shutdown != nil or Status.stopping?(supervisor) -> :stopping
      state.kind == :drain or state.next != nil -> :draining
      true -> %{none: nil, cordoned: :cordoned, final: :stopping}[Mark.mark(supervisor)]
    end
  end

  defp wait_for_rebalance(state, from) do
    waiting = [from | state.waiting]
    Status.put_rebalance_waiting(state.status, length(waiting))
    %{state | waiting: waiting}
  end

  # A drain that is asked for ends the rebalance, and comes after it.
  defp after_rebalance(%{next: nil} = state, options, callers) do
    Status.put_waiting(state.status, length(callers))
    state = %{state | next: %{options: options, callers: callers, cancelled?: false}}
    state |> put_draining() |> end_rebalance()
  end

  defp after_rebalance(%{next: next} = state, _options, callers) do
    callers = callers ++ next.callers
    Status.put_waiting(state.status, length(callers))
    %{state | next: %{next | callers: callers}}
  end

  # Status shows a drain from the request on, also while it waits behind a rebalance.
  defp put_draining(state) do
    Status.put_draining(state.status)
    state
  end

  defp cancel_next(%{next: nil, shutdown: nil} = state), do: state

  defp cancel_next(state) do
    announce_cancel(state)
    %{state | next: state.next && %{state.next | cancelled?: true}, cancelled?: state.shutdown != nil}
  end

  defp end_rebalance(%{drain: {pid, _monitor}} = state) do
    Drain.cancel(pid, :request)
    Process.send_after(self(), {:let_go, pid}, @settle_ms)
    state
  end

  defp ensure_draining(%{drain: nil, supervisor: supervisor} = state, options, deadline, why) do
    Leftovers.Message.stand_down(supervisor)
    state = state |> put_draining() |> ensure_storing()
    %{state | drain: Drain.start(supervisor, options, deadline, why, state.status, state.storing), kind: :drain}
  end

  defp ensure_draining(state, _options, _deadline, _why), do: state

  defp ensure_storing(%{storing: nil} = state),
    do: %{state | storing: Storing.start(state.supervisor, state.options.attempt_timeout_ms)}

  defp ensure_storing(state), do: state

  defp stop_storing(%{storing: nil} = state), do: state

  defp stop_storing(%{storing: storing} = state) do
    Storing.stop(storing)
    %{state | storing: nil}
  end

  defp put_waiting(state, waiting) do
    Status.put_waiting(state.status, length(waiting))
    %{state | waiting: waiting}
  end

  defp ended(%{kind: :rebalance} = state, result) do
    announce_rebalance(state.supervisor, result)
    Status.put_rebalanced(state.status, result)
    Enum.each(state.waiting, &GenServer.reply(&1, result))
    Status.put_rebalance_waiting(state.status, 0)
    start_next(%{state | drain: nil, kind: nil, waiting: []})
  end

  defp ended(state, result) do
    announce(state.supervisor, result)
    Status.put_result(state.status, result)
    Enum.each(state.waiting, &GenServer.reply(&1, result))
    %{stop_storing(state) | drain: nil, kind: nil} |> put_waiting([]) |> after_drain()
  end

  # A shutdown comes first: its drain is the one that callers get.
  defp start_next(%{shutdown: %{}} = state),
    do: state |> wait_next() |> start_for_shutdown() |> cancel_if(state.cancelled?, :shutdown)

  defp start_next(%{next: nil} = state), do: state

  defp start_next(%{next: %{options: options, cancelled?: cancelled?}} = state) do
    state = state |> wait_next() |> ensure_draining(options, asked_for(options), :request)
    cancel_if(state, cancelled?, :request)
  end

  defp wait_next(%{next: nil} = state), do: state
  defp wait_next(%{next: %{callers: callers}} = state), do: put_waiting(%{state | next: nil}, callers)

  # It moves nothing, and its callers get the report of a drain that was cancelled.
  defp cancel_if(%{drain: {pid, _monitor}} = state, true, why) do
    Drain.cancel(pid, why)
    state
  end

  defp cancel_if(state, _cancelled?, _why), do: state

  defp after_drain(%{shutdown: nil} = state), do: state

  # The earlier drain may have had other options, or failed: drain what it left.
  defp after_drain(%{shutdown: %{again?: true} = shutdown, cancelled?: false} = state),
    do: start_for_shutdown(%{state | shutdown: %{shutdown | again?: false}})

  defp after_drain(state), do: let_shutdown_go_on(state)

  defp announce_cancel(state) do
    stopping? = state.shutdown != nil

    rest =
      if stopping?,
        do: "the graceful shutdown stops the rest",
        else:
          "servers that have not moved go on running here, and this node stays cordoned: uncordon/1 lets it take servers again"

    text = "the drain is cancelled: it ends when the moves in flight have settled; " <> rest
    Log.warning(:drain_cancelled, state.supervisor, text, shutdown: stopping?)
  end

  defp announce_rebalance(supervisor, {:ok, %{balance: balance} = report}) do
    level = if balance == nil or report.moved >= balance.excess, do: :info, else: :warning
    # One that has nothing to do is the rule.
    if level == :warning or report.moved > 0,
      do: Log.write(level, :rebalance_ended, supervisor, to_string(report), report: report)
  end

  defp announce_rebalance(supervisor, {:error, reason}) do
    shown = inspect(reason, limit: 20, printable_limit: 1_000)
    Log.warning(:rebalance_failed, supervisor, "the rebalance did not end as it should: #{shown}", reason: reason)
  end

  defp announce(supervisor, {:ok, report}) do
    level = if report.moved + Map.get(report.left, :excluded, 0) == report.total, do: :info, else: :warning
    Log.write(level, :drain_ended, supervisor, to_string(report), report: report)
    if report.ended == :failures, do: Telemetry.fallback(supervisor, :failures)
    :ok
  end

  defp announce(supervisor, {:error, reason}) do
    shown = inspect(reason, limit: 20, printable_limit: 1_000)
    Log.error(:drain_failed, supervisor, "the drain failed, the graceful shutdown begins: #{shown}", reason: reason)

    Telemetry.fallback(supervisor, if(reason == :overdue, do: :overdue, else: {:drain_failed, reason}))
  end

  defp arguments!(arguments) do
    unless Keyword.keyword?(arguments) do
      raise ArgumentError,
            "DurableHandoff.Drainer got #{inspect(arguments)}, expected [supervisor: MyApp.Durable, handoff_on_shutdown: true]"
    end

    case Keyword.validate(arguments, [:supervisor, handoff_on_shutdown: true]) do
      {:ok, arguments} ->
        {Schema.supervisor_name!(arguments[:supervisor], "DurableHandoff.Drainer: :supervisor"),
         Options.new!(arguments[:handoff_on_shutdown])}

      {:error, unknown} ->
        raise ArgumentError,
              "DurableHandoff.Drainer got unknown options #{inspect(unknown)}, expected :supervisor and :handoff_on_shutdown"
    end
  end

  defp name(supervisor), do: :"#{supervisor}_handoff_drainer"
end
