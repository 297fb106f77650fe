defmodule DurableHandoff.Drainer.Server do
  @moduledoc false
  # The process of a Drainer: one drain or rebalance at a time, for callers and for the shutdown. What comes
  # meanwhile joins the drain that runs, or waits for the rebalance that it ends.

  use GenServer

  alias DurableHandoff.{Clock, Deadline, Drain, Host, Leftovers, Log, Options, Status, Telemetry}
  alias DurableHandoff.Drain.Storing
  alias DurableHandoff.Drainer.Announcement
  alias DurableHandoff.Host.Mark

  @enforce_keys [:supervisor, :options, :status]
  defstruct @enforce_keys ++
              [:storing, :drain, :kind, :shutdown, :next, waiting: [], cancelled?: false, slower?: false]

  @spec child_spec({Host.name(), Options.t()}) :: Supervisor.child_spec()
  def child_spec({supervisor, _options} = arguments) do
    %{
      id: __MODULE__,
      start: {GenServer, :start_link, [__MODULE__, arguments, [name: name(supervisor)]]},
      # This process has no terminate/2, so it stops at once unless it hangs.
      shutdown: Deadline.answer_ms()
    }
  end

  @spec name(Host.name()) :: atom()
  def name(supervisor), do: :"#{supervisor}_handoff_drainer"

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

  def handle_call({:start_drain, options}, _from, state) do
    answer = if state.drain == nil, do: :started, else: :joined
    # Done before the reply, so that a caller that then asks status/1 sees this drain and not the previous
    # one.
    {:reply, {:ok, answer}, ensure_draining(state, options, asked_for(options), :request)}
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

  def handle_call(:cancel, _from, %{drain: nil} = state), do: {:reply, {:error, :not_draining}, state}

  def handle_call(:cancel, _from, %{drain: {pid, _monitor}, kind: :rebalance} = state) do
    Drain.cancel(pid, :request)
    {:reply, :ok, cancel_next(state)}
  end

  def handle_call(:cancel, _from, %{cancelled?: true} = state), do: {:reply, :ok, state}

  def handle_call(:cancel, _from, state) do
    Announcement.cancelled(state.supervisor, state.shutdown != nil)
    {:reply, :ok, cancel_if(state, true)}
  end

  def handle_call({:shutdown, deadline}, from, %{drain: earlier} = state) do
    Telemetry.shutdown_start(state.supervisor, deadline)
    Status.put_marked(state.supervisor)
    shutdown = %{from: from, deadline: deadline, again?: state.kind == :drain, late?: true}
    state = %{state | shutdown: shutdown, cancelled?: false}

    {:noreply,
     cond do
       earlier == nil -> start_for_shutdown(state)
       state.kind == :rebalance -> state |> put_draining() |> end_rebalance(Deadline.let_go_us(deadline))
       true -> join_for_shutdown(state, deadline)
     end}
  end

  @impl true
  # A node that is about to stop starts no rebalance.
  def handle_cast(:prepare, %{drain: drain, kind: kind, options: options} = state)
      when drain == nil or kind == :rebalance do
    state = ensure_storing(if drain, do: end_rebalance(state), else: state)
    Storing.ask(state.storing, Deadline.prepared_us(Clock.now_us(), options.shutdown_budget_ms, options.timeout_ms))
    {:noreply, state}
  end

  # A drain is running: it has already asked the servers to store their states.
  def handle_cast(:prepare, state), do: {:noreply, state}

  @impl true
  def handle_info({:drained, pid, result, late}, %{drain: {pid, monitor}} = state) do
    Process.demonitor(monitor, [:flush])
    {:noreply, ended(state, result, late)}
  end

  def handle_info({:DOWN, monitor, :process, pid, reason}, %{drain: {pid, monitor}} = state),
    do: {:noreply, ended(state, {:error, {:drain_failed, reason}})}

  def handle_info({:DOWN, monitor, :process, _pid, _crashed}, %{storing: %{monitor: monitor}} = state),
    do: {:noreply, stop_storing(state)}

  # The attempts of the drain finish what they have begun; this process does not wait for them.
  def handle_info({:let_go, pid}, %{drain: {pid, monitor}} = state) do
    Process.demonitor(monitor, [:flush])
    {:noreply, ended(state, {:error, :overdue})}
  end

  def handle_info({:cancel, pid}, %{drain: {pid, _monitor}} = state) do
    cancel(pid, state)
    {:noreply, state}
  end

  def handle_info({:give_up, pid}, %{drain: {pid, _monitor}} = state), do: {:noreply, ended(state, {:error, :overdue})}

  # Late: the end of a drain that this process no longer waits for, and a timer of a drain that has ended.
  def handle_info({:drained, _overdue, _result, _late}, state), do: {:noreply, state}
  def handle_info({:DOWN, _monitor, :process, _overdue, _reason}, state), do: {:noreply, state}
  def handle_info({timer, _ended}, state) when timer in [:let_go, :cancel, :give_up], do: {:noreply, state}

  def handle_info(unexpected, state) do
    Log.unexpected(state.supervisor, unexpected)
    {:noreply, state}
  end

  # A running drain with a later deadline is told to end in time for the shutdown. One with lower limits than those of
  # the shutdown, or that waits longer for a target, ends now, so that the shutdown moves the rest at its own pace.
  defp join_for_shutdown(%{drain: {pid, _monitor}} = state, deadline) do
    if state.slower?,
      do: Drain.cancel(pid, {:request, %{deadline | end_us: Deadline.let_go_us(deadline)}}),
      else: send_at(Deadline.settle_us(deadline), {:cancel, pid})

    send_at(deadline.end_us, {:give_up, pid})
    state
  end

  # No time is left: a drain would only delay the shutdown.
  defp start_for_shutdown(%{shutdown: %{deadline: deadline}} = state) do
    now = Clock.now_us()

    if now < deadline.end_us do
      ensure_draining(state, state.options, %{deadline | begin_us: now}, :shutdown)
    else
      # Callers whose drain waited for a rebalance to end.
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
    deadline = asked_for(options)
    {pid, _monitor} = drain = Drain.start(supervisor, options, deadline, {:rebalance, settings}, state.status, nil)
    send_at(Deadline.give_up_us(deadline, :request), {:give_up, pid})
    Status.put_rebalancing(state.status, pid)
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

  # A requested drain ends the rebalance and starts after it.
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

  # The status shows a drain from its request on, even while it waits for a rebalance to end.
  defp put_draining(state) do
    Status.put_draining(state.status, nil)
    state
  end

  defp cancel_next(%{next: nil, shutdown: nil} = state), do: state
  defp cancel_next(%{next: %{cancelled?: true}, shutdown: nil} = state), do: state
  defp cancel_next(%{cancelled?: true} = state), do: state

  defp cancel_next(state) do
    Announcement.cancelled(state.supervisor, state.shutdown != nil)
    %{state | next: state.next && %{state.next | cancelled?: true}, cancelled?: state.shutdown != nil}
  end

  # After `let_go_us` its moves in flight settle by themselves.
  defp end_rebalance(%{drain: {pid, _monitor}} = state, let_go_us \\ Clock.after_ms(Deadline.let_go_ms())) do
    Drain.cancel(pid, :request)
    send_at(let_go_us, {:let_go, pid})
    state
  end

  defp ensure_draining(%{drain: nil, supervisor: supervisor} = state, options, deadline, why) do
    state = state |> put_draining() |> ensure_storing()
    # After the status, by which the receiver of leftovers decides whether it may start servers again.
    Leftovers.Message.stand_down(supervisor)
    {pid, _monitor} = drain = Drain.start(supervisor, options, deadline, why, state.status, state.storing)
    Status.put_draining(state.status, pid)
    send_at(Deadline.give_up_us(deadline, why), {:give_up, pid})
    %{state | drain: drain, kind: :drain, slower?: Options.slower?(options, state.options)}
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

  defp ended(state, result, late \\ nil)

  defp ended(%{kind: :rebalance} = state, result, _late) do
    Announcement.rebalanced(state.supervisor, result)
    Status.put_rebalanced(state.status, result)
    Enum.each(state.waiting, &GenServer.reply(&1, result))
    Status.put_rebalance_waiting(state.status, 0)
    start_next(%{state | drain: nil, kind: nil, waiting: []})
  end

  defp ended(state, result, late) do
    Announcement.ended(state.supervisor, result, state.shutdown != nil)
    Status.put_result(state.status, result)
    Enum.each(state.waiting, &GenServer.reply(&1, result))
    # A cancel of a requested drain ends with it, one of a shutdown counts for all its drains.
    cancelled? = state.cancelled? and state.shutdown != nil
    %{stop_storing(state) | drain: nil, kind: nil, cancelled?: cancelled?} |> put_waiting([]) |> after_drain(late)
  end

  # A shutdown takes precedence: waiting callers get the result of its drain.
  defp start_next(%{shutdown: %{}} = state),
    do: state |> wait_next() |> start_for_shutdown() |> cancel_if(state.cancelled?)

  defp start_next(%{next: nil} = state), do: state

  defp start_next(%{next: %{options: options, cancelled?: cancelled?}} = state) do
    state = state |> wait_next() |> ensure_draining(options, asked_for(options), :request)
    cancel_if(state, cancelled?)
  end

  defp wait_next(%{next: nil} = state), do: state
  defp wait_next(%{next: %{callers: callers}} = state), do: put_waiting(%{state | next: nil}, callers)

  # The waiting drain moves nothing, and its callers get the report of a cancelled drain.
  defp cancel_if(%{drain: {pid, _monitor}} = state, true) do
    cancel(pid, state)
    %{state | cancelled?: true}
  end

  defp cancel_if(state, _cancelled?), do: state

  defp cancel(pid, %{shutdown: nil}), do: Drain.cancel(pid, :request)
  defp cancel(pid, %{shutdown: %{deadline: deadline}}), do: Drain.cancel(pid, {:shutdown, deadline})

  defp after_drain(%{shutdown: nil} = state, _late), do: state

  # The earlier drain may have had other options, or failed: drain what it left.
  defp after_drain(%{shutdown: %{again?: true} = shutdown, cancelled?: false} = state, _late),
    do: start_for_shutdown(%{state | shutdown: %{shutdown | again?: false}})

  # Once more for servers that were still starting when the drain took its snapshot, such as those that other drains had
  # just sent here; and again for those that came up during that drain. A server that never comes up repeats nothing.
  defp after_drain(%{shutdown: %{late?: late?} = shutdown, cancelled?: false} = state, late)
       when late == :running or (late == :starting and late?),
       do: start_for_shutdown(%{state | shutdown: %{shutdown | late?: false}})

  defp after_drain(state, _late), do: let_shutdown_go_on(state)
end
