defmodule DurableHandoff.Drainer do
  @moduledoc """
  Drains a supervisor when it is stopped.

  `DurableHandoff.Supervisor` starts one. For a `DurableServer.Supervisor` that is already in a supervision tree, put one right after it:

      children = [
        {DurableServer.Supervisor, name: MyApp.Durable, prefix: "myapp/", backend: backend},
        {DurableHandoff.Drainer, supervisor: MyApp.Durable, handoff_on_shutdown: [timeout_ms: 30_000]}
      ]

  Children are stopped last to first: the Drainer drains while everything before it still runs. Nodes whose supervisor has only
  a Drainer tell the others neither release nor load; they still work, as sources and as targets.

  Guarantees:

    * `terminate/2` returns within `timeout_ms`, whatever fails, and never crashes because a drain did. With a
      `shutdown_budget_ms` it returns early enough for what comes after it (`DurableHandoff.Deadline`).
    * Only a shutdown drains. A Drainer that crashes or is stopped for another reason moves nothing.
    * One drain at a time: `DurableHandoff.drain/2` and a shutdown that find one running wait for that one. A shutdown then drains
      what that one left, or what came since.
    * A drain that is cancelled ends as soon as what is in flight has settled. A shutdown starts no other after it.

  ```text
  Supervisor               started by start_link/1
  ├── Leftovers            unless `start_leftovers: false`; stopped second
  └── Drainer              stopped first, and drains
  ```
  """

  use GenServer

  require Logger

  alias DurableHandoff.{Budget, Clock, Deadline, Drain, Host, Leftovers, Native, Options, Status, Stopping, Telemetry}

  # One conditional write of an object store in the same region.
  @assumed_write_ms 50

  @doc "Takes `:supervisor`, the name of the DurableServer.Supervisor, and `:handoff_on_shutdown` (`DurableHandoff.Options`)."
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
        leftovers = if options.start_leftovers, do: [{Leftovers, {supervisor, options}}], else: []
        children = leftovers ++ [worker(supervisor, options)]
        Supervisor.start_link(children, strategy: :one_for_one, name: :"#{supervisor}_handoff")
    end
  end

  defp worker(supervisor, options) do
    %{
      id: __MODULE__,
      start: {GenServer, :start_link, [__MODULE__, {supervisor, options}, [name: name(supervisor)]]},
      shutdown: Deadline.child_ms(options.timeout_ms, :inner),
      modules: [__MODULE__]
    }
  end

  @doc "A child that has `timeout_ms` to drain before its supervisor would kill it."
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

  @doc "Drains now, or waits for the drain that runs. `options` count only for a drain that this call starts."
  @spec drain(Host.name(), Options.t()) :: Drain.result() | {:error, :no_drainer | {:drain_failed, term()} | :overdue}
  def drain(supervisor, %Options{} = options) do
    GenServer.call(name(supervisor), {:drain, options}, :infinity)
  catch
    :exit, {_reason, {GenServer, :call, _arguments}} -> {:error, :no_drainer}
  end

  @doc "Starts a drain and returns at once: `:started`, or `:joined` when one runs already."
  @spec start_drain(Host.name(), Options.t()) :: {:ok, :started | :joined} | {:error, :no_drainer}
  def start_drain(supervisor, %Options{} = options), do: call(supervisor, {:start_drain, options})

  @doc "Ends the drain that runs."
  @spec cancel(Host.name()) :: :ok | {:error, :not_draining | :no_drainer}
  def cancel(supervisor), do: call(supervisor, :cancel)

  defp call(supervisor, request) do
    # It answers between two messages; to give up waiting would leave open what has become of the request.
    GenServer.call(name(supervisor), request, :infinity)
  catch
    :exit, {_reason, {GenServer, :call, _arguments}} -> {:error, :no_drainer}
  end

  @impl true
  def init({supervisor, options}) do
    Process.flag(:trap_exit, true)
    announce_budget(supervisor, options)

    {:ok,
     %{
       supervisor: supervisor,
       options: options,
       status: Status.new(supervisor, options),
       drain: nil,
       waiting: [],
       stopping?: false,
       cancelled?: false
     }}
  end

  @impl true
  def handle_call(request, from, state), do: {:noreply, asked(request, from, state)}

  @impl true
  def handle_info(message, state), do: {:noreply, handle(message, state)}

  @impl true
  def terminate(reason, state) do
    if Drain.shutdown?(reason) do
      now = Clock.now_us()
      deadline = deadline(state, now)
      Telemetry.shutdown_start(state.supervisor, deadline)
      joined? = state.drain != nil
      state = %{state | stopping?: true}
      # No time is left: a drain would only delay the shutdown.
      state = if joined? or now < deadline.end_us, do: drain_within(state, deadline, now), else: state
      now = Clock.now_us()
      # The earlier drain may have had other options, or failed: drain what it left.
      if joined? and not state.cancelled? and now < deadline.end_us,
        do: drain_within(state, %{deadline | begin_us: now}, now)

      Telemetry.shutdown_stop(state.supervisor, deadline, Clock.now_us())
    end
  end

  defp deadline(%{supervisor: supervisor, options: options}, now) do
    deadline =
      Deadline.shutdown(now, %{
        timeout_ms: options.timeout_ms,
        budget_ms: options.shutdown_budget_ms,
        noted_us: Stopping.noted_us(),
        graceful_ms: Host.graceful_shutdown_ms(supervisor),
        need_ms: Deadline.graceful_need_ms(Host.count(supervisor), @assumed_write_ms)
      })

    with %{} = cut <- deadline.cut do
      Logger.warning("[durable_handoff] #{inspect(supervisor)}: #{Budget.cut(cut)}")
    end

    deadline
  end

  # A drain that was started with a later limit is told to end in time for this one; one that is started here knows it.
  defp drain_within(%{options: options} = state, deadline, now) do
    joined? = state.drain != nil
    %{drain: {pid, _monitor}} = state = ensure_draining(state, options, deadline)
    if joined?, do: send_at(Deadline.cancel_us(deadline), now, {:cancel, pid})
    send_at(deadline.end_us, now, {:give_up, pid})
    await(state)
  end

  defp send_at(instant_us, now, message),
    do: Process.send_after(self(), message, Deadline.until_ms(instant_us, now))

  defp await(%{drain: nil} = state), do: state

  defp await(state) do
    receive do
      # As a GenServer's own loop would see it; that one has ended.
      {:"$gen_call", from, request} -> request |> asked(from, state) |> await()
      message -> message |> handle(state) |> await()
    end
  end

  defp asked({:drain, options}, from, state), do: state |> ensure_draining(options, asked_for(options)) |> wait(from)

  defp asked({:start_drain, options}, from, state) do
    answer = if state.drain == nil, do: :started, else: :joined
    state = ensure_draining(state, options, asked_for(options))
    # After that: who asks status/1 next sees this drain, not the one before.
    GenServer.reply(from, {:ok, answer})
    state
  end

  defp asked(:cancel, from, %{drain: nil} = state) do
    GenServer.reply(from, {:error, :not_draining})
    state
  end

  defp asked(:cancel, from, %{drain: {pid, _monitor}} = state) do
    Logger.warning(
      "[durable_handoff] #{inspect(state.supervisor)}: the drain is cancelled on request: it ends when what is in flight has " <>
        "settled. This node stays marked draining: " <>
        if(state.stopping?,
          do: "the existing shutdown stops the rest",
          else:
            "what has not moved goes on running here, and nothing new is started here until the supervisor is restarted"
        )
    )

    Drain.cancel(pid, if(state.stopping?, do: :shutdown, else: :request))
    GenServer.reply(from, :ok)
    %{state | cancelled?: state.stopping?}
  end

  defp asked_for(options), do: Deadline.drain(Clock.now_us(), options.timeout_ms)

  defp ensure_draining(%{drain: nil} = state, options, deadline) do
    Leftovers.Message.stand_down(state.supervisor)
    Status.put_draining(state.status)
    %{state | drain: Drain.start(state.supervisor, options, deadline, state.status)}
  end

  defp ensure_draining(state, _options, _deadline), do: state

  defp wait(state, from), do: %{state | waiting: [from | state.waiting]}

  defp handle({:drained, pid, result}, %{drain: {pid, monitor}} = state) do
    Process.demonitor(monitor, [:flush])
    ended(state, result)
  end

  defp handle({:DOWN, monitor, :process, pid, reason}, %{drain: {pid, monitor}} = state) do
    ended(state, {:error, {:drain_failed, reason}})
  end

  defp handle({:cancel, pid}, %{drain: {pid, _monitor}} = state) do
    Drain.cancel(pid, :shutdown)
    state
  end

  defp handle({:give_up, pid}, %{drain: {pid, _monitor}} = state), do: ended(state, {:error, :overdue})

  defp handle(_unknown, state), do: state

  defp ended(state, result) do
    announce(state.supervisor, result)
    Status.put_result(state.status, result)
    Enum.each(state.waiting, &GenServer.reply(&1, result))
    %{state | drain: nil, waiting: []}
  end

  defp announce(supervisor, {:ok, report}) do
    level = if report.moved + Map.get(report.left, :excluded, 0) == report.total, do: :info, else: :warning
    Logger.log(level, "[durable_handoff] #{inspect(supervisor)}: #{report}")
    if report.ended == :failures, do: Telemetry.fallback(supervisor, :failures)
  end

  defp announce(supervisor, {:error, reason}) do
    Logger.error(
      "[durable_handoff] #{inspect(supervisor)}: the drain failed, the existing shutdown goes on: " <>
        inspect(reason, limit: 20, printable_limit: 1_000)
    )

    Telemetry.fallback(supervisor, if(reason == :overdue, do: :overdue, else: {:drain_failed, reason}))
  end

  # The children that stop before this one are started after it: their supervisors answer when all are.
  defp announce_budget(supervisor, options) do
    {drainer, ancestors} = {self(), Process.get(:"$ancestors", [])}

    :proc_lib.spawn(fn ->
      {opening, warning} = Budget.lines(supervisor, options, Budget.before_ms(drainer, ancestors))
      Logger.info("[durable_handoff] #{inspect(supervisor)}: #{opening}")
      if warning, do: Logger.warning("[durable_handoff] #{inspect(supervisor)}: #{warning}")
    end)
  end

  defp arguments!(arguments) do
    unless Keyword.keyword?(arguments) do
      raise ArgumentError,
            "DurableHandoff.Drainer got #{inspect(arguments)}, expected [supervisor: MyApp.Durable, handoff_on_shutdown: true]"
    end

    case Keyword.validate(arguments, [:supervisor, handoff_on_shutdown: true]) do
      {:ok, arguments} ->
        {supervisor!(arguments[:supervisor]), Options.new!(arguments[:handoff_on_shutdown])}

      {:error, unknown} ->
        raise ArgumentError,
              "DurableHandoff.Drainer got unknown options #{inspect(unknown)}, expected :supervisor and :handoff_on_shutdown"
    end
  end

  defp supervisor!(name) when is_atom(name) and name not in [nil, true, false], do: name

  defp supervisor!(other) do
    raise ArgumentError,
          "DurableHandoff.Drainer: :supervisor got #{inspect(other)}, expected the name of a DurableServer.Supervisor"
  end

  defp name(supervisor), do: :"#{supervisor}_handoff_drainer"
end
