defmodule DurableHandoff.Client.Server do
  @moduledoc false
  # Finds the owners for which the callers of one supervisor on this node wait, and answers them.
  #
  # Guarantees:
  #
  #   * A key that callers wait for has one subscription in the registry, however many they are. Other keys
  #     have none.
  #   * No wake-up is lost: it subscribes first and looks the owner up again afterwards. Registry events can
  #     still be lost, so every key with a waiting caller is also polled.
  #   * A caller never gets a process that it knows to be gone, nor one that this node cannot reach.
  #   * A server that is to be started is started once, however many callers ask, and `StartQueue` bounds how
  #     many starts run at a time. A start that fails ends only the calls that gave that module.
  #   * No more callers wait than the limits allow; a caller that ends is forgotten.
  #   * Callers do not depend on the registry alone: a draining node sends this process on every connected
  #     node the owners of what it has moved (`announce/3`). Where the registry names no owner, or one that
  #     the caller knows to be gone, such a hint is tried (`DurableHandoff.Client.Hints`).
  #
  # Hints are sent in batches, as `{DurableHandoff.Client, :owners, 1, [{key, pid}]}`, to the name of this
  # process. The number is the version of the message; other versions are ignored, as versions of this
  # library without hints ignore all of them. Both names are part of that message: a node of another release
  # uses them.
  #
  # Nothing depends on it: callers that do not find it, or see it end, poll the registry themselves
  # (`DurableHandoff.Client.Call`).

  use GenServer

  alias DurableHandoff.Client.{Hints, Limits, StartQueue, WaitList}
  alias DurableHandoff.{Clock, Host}

  @poll_ms 200
  # Polls find owners whose events were lost. However many keys there are, polling takes at most this part of
  # the time.
  @poll_share 10
  # When the supervisor does not run on this node, callers wait for this many polls: it restarts at once or
  # not at all.
  @max_polls_without_supervisor 5

  # A drain moves many servers in a short time. Each connected node gets one message for all servers moved in
  # this interval.
  @hints_every_ms 5
  # Not an alias: a reference to that module would be a dependency on it.
  @hints_tag :"Elixir.DurableHandoff.Client"
  @hints_version 1
  # The most hints that are sent, or read, in one message.
  @hints_per_message 1_000

  defstruct [
    :supervisor,
    :limits,
    :registry,
    :hints,
    :waiters,
    :starts,
    poll_ms: @poll_ms,
    subscribed: MapSet.new(),
    refusals: %{},
    outbox: [],
    host: nil,
    polls_without_supervisor: 0,
    poll: nil
  ]

  @typedoc "`registry` is `DurableHandoff.Host.Registry` and `poll_ms` absent everywhere but in tests."
  @type arguments :: %{
          required(:supervisor) => Host.name(),
          required(:limits) => Limits.t(),
          required(:registry) => module(),
          optional(:poll_ms) => pos_integer()
        }
  @type question :: {:wait, WaitList.key(), dead :: [pid()], start :: nil | Host.Registry.start(), timeout()}

  @doc "Starts the process, registered as `name/1`."
  @spec start_link(arguments()) :: GenServer.on_start()
  def start_link(%{supervisor: supervisor} = arguments),
    do: GenServer.start_link(__MODULE__, arguments, name: name(supervisor))

  @doc "The name of the process, on every node: other nodes send hints there."
  @spec name(Host.name()) :: atom()
  def name(supervisor), do: :"#{supervisor}_handoff_waiting"

  @doc """
  Sends callers of `supervisor` on this node and all connected nodes the hint that `key` runs as `pid` now.

  Best effort: nodes that cannot be sent to at once are left out. Returns at once. Where the process does not
  run here, each hint is a message of its own.
  """
  @spec announce(Host.name(), WaitList.key(), pid()) :: :ok
  def announce(supervisor, key, pid) do
    if Process.whereis(name(supervisor)),
      do: GenServer.cast(name(supervisor), {:moved, key, pid}),
      else: send_hints(supervisor, [{key, pid}])
  end

  # A node that is busy or gone is left out: waiting for it costs more than a hint saves.
  defp send_hints(supervisor, owners) do
    for some <- Enum.chunk_every(owners, @hints_per_message), node <- Node.list() do
      message = {@hints_tag, :owners, @hints_version, some}
      :erlang.send({name(supervisor), node}, message, [:noconnect, :nosuspend])
    end

    :ok
  end

  @doc """
  The numbers of callers that wait, of subscribed keys, of starts that run or are queued, and of hints; and
  whether it polls.
  """
  @spec counts(Host.name()) :: %{
          callers: non_neg_integer(),
          subscriptions: non_neg_integer(),
          starts: non_neg_integer(),
          hints: non_neg_integer(),
          polling?: boolean()
        }
  def counts(supervisor), do: GenServer.call(name(supervisor), :counts, :infinity)

  @impl true
  def init(arguments) do
    # A registry may link its subscribers to itself. Its end must not end this process.
    Process.flag(:trap_exit, true)

    state = %__MODULE__{waiters: WaitList.new(), starts: StartQueue.new(), hints: Hints.new(Clock.now_us())}
    {:ok, struct!(state, arguments)}
  end

  @impl true
  def handle_call({:wait, key, dead, start, timeout}, {pid, _tag} = from, state) do
    case Limits.admit(state.limits, WaitList.count(state.waiters), WaitList.count(state.waiters, key)) do
      :ok ->
        # Without a caller there are no polls, so what they counted is from an earlier outage.
        state = if WaitList.count(state.waiters) == 0, do: %{state | polls_without_supervisor: 0}, else: state

        case state |> watch_host() |> subscribe(key) |> usable(key, dead) do
          {nil, state} ->
            waiter = %{from: from, monitor: Process.monitor(pid), dead: dead, start: start}
            waiter = Map.put(waiter, :until_us, Clock.after_ms(timeout))
            state = %{state | waiters: WaitList.add(state.waiters, key, pid, waiter)}
            state = if start, do: update_in(state.starts, &StartQueue.want(&1, key)), else: state
            {:noreply, state |> start_some() |> arm_poll()}

          {owner, state} ->
            {:reply, {:ok, owner}, unsubscribe_unused(state, key)}
        end

      overloaded ->
        {:reply, overloaded, state}
    end
  end

  # A caller's time is nearly up.
  def handle_call({:give_up, key, dead}, {pid, _tag}, state) do
    {owner, state} = usable(state, key, dead)

    answer =
      case {owner, state.refusals} do
        {nil, %{^key => {_module, reason}}} -> {:error, {:start_failed, reason}}
        {nil, _none} -> {:error, :no_owner}
        {owner, _refusals} -> {:ok, owner}
      end

    {:reply, answer, forget(state, pid)}
  end

  def handle_call(:counts, _from, state) do
    counts = %{
      callers: WaitList.count(state.waiters),
      subscriptions: MapSet.size(state.subscribed),
      starts: StartQueue.count(state.starts),
      hints: Hints.count(state.hints),
      polling?: state.poll != nil
    }

    {:reply, counts, state}
  end

  @impl true
  def handle_cast({:forget, pid}, state), do: {:noreply, forget(state, pid)}

  def handle_cast({:moved, key, pid}, state) do
    if state.outbox == [], do: Process.send_after(self(), :send_hints, @hints_every_ms)
    {:noreply, hint(%{state | outbox: [{key, pid} | state.outbox]}, key, pid)}
  end

  @impl true
  def handle_info(:poll, state), do: {:noreply, poll_all(%{state | poll: nil})}

  def handle_info(:send_hints, state) do
    send_hints(state.supervisor, Enum.reverse(state.outbox))
    {:noreply, %{state | outbox: []}}
  end

  def handle_info({@hints_tag, :owners, version, owners}, state) do
    if version == @hints_version,
      do: {:noreply, hints(state, owners, @hints_per_message)},
      else: {:noreply, state}
  end

  def handle_info({:DOWN, monitor, :process, _pid, _reason}, %{host: {_host, monitor}} = state),
    do: {:noreply, %{state | host: nil, polls_without_supervisor: 0, subscribed: MapSet.new()}}

  def handle_info({:DOWN, monitor, :process, pid, reason}, state) do
    case StartQueue.ended(state.starts, monitor) do
      {key, module, starts} ->
        {:noreply, %{state | starts: starts} |> started(key, module, StartQueue.result(reason)) |> start_some()}

      nil ->
        {:noreply, forget(state, pid)}
    end
  end

  def handle_info({:EXIT, _registry, _reason}, state), do: {:noreply, state}

  def handle_info(message, state) do
    {:noreply,
     for {:registered, key, pid} <- state.registry.events(message), reduce: state do
       state -> wake(state, key, pid)
     end}
  end

  # Callers

  defp wake(state, key, owner) do
    if WaitList.count(state.waiters, key) > 0 and Host.Registry.reachable?(owner),
      do: answer(state, key, &(owner not in &1.dead), {:ok, owner}),
      else: state
  end

  defp answer(state, key, whom?, answer) do
    {answered, waiters} = WaitList.take(state.waiters, key, whom?)

    for waiter <- answered do
      Process.demonitor(waiter.monitor, [:flush])
      GenServer.reply(waiter.from, answer)
    end

    unsubscribe_unused(%{state | waiters: waiters}, key)
  end

  defp forget(state, pid) do
    case WaitList.remove(state.waiters, pid) do
      {nil, _waiters} ->
        state

      {{key, waiter}, waiters} ->
        Process.demonitor(waiter.monitor, [:flush])
        unsubscribe_unused(%{state | waiters: waiters}, key)
    end
  end

  # The owner in the registry, or else in a hint, unless the caller knows that the process is dead.
  defp usable(state, key, dead) do
    owner = state.registry.owner(state.supervisor, key)
    if owner == nil or owner in dead, do: hinted(state, key, dead), else: {owner, state}
  end

  # Hints

  defp hinted(state, key, dead) do
    {pid, hints} = Hints.get(state.hints, key, Clock.now_us())

    cond do
      pid in dead -> {nil, %{state | hints: Hints.drop(hints, key)}}
      pid == nil or not Host.Registry.reachable?(pid) -> {nil, %{state | hints: hints}}
      true -> {pid, %{state | hints: hints}}
    end
  end

  # Hints come from other nodes: everything but pairs of a key and a process is ignored.
  defp hints(state, [{key, pid} | owners], limit) when is_pid(pid) and limit > 0,
    do: state |> hint(key, pid) |> hints(owners, limit - 1)

  defp hints(state, [_invalid | owners], limit) when limit > 0, do: hints(state, owners, limit - 1)
  defp hints(state, _end_or_too_many, _limit), do: state

  defp hint(state, key, pid), do: wake(%{state | hints: Hints.put(state.hints, key, pid, Clock.now_us())}, key, pid)

  # Subscriptions

  defp subscribe(state, key) do
    if state.host == nil or key in state.subscribed do
      state
    else
      case state.registry.subscribe(state.supervisor, key) do
        :ok -> update_in(state.subscribed, &MapSet.put(&1, key))
        # The next poll tries again.
        {:error, _reason} -> state
      end
    end
  end

  defp unsubscribe_unused(state, key) do
    if WaitList.count(state.waiters, key) > 0 do
      state
    else
      if key in state.subscribed, do: :ok = state.registry.unsubscribe(state.supervisor, key)
      %{state | subscribed: MapSet.delete(state.subscribed, key), refusals: Map.delete(state.refusals, key)}
    end
  end

  # Subscriptions end with the supervisor, so it is monitored. The next polls find the new supervisor.
  defp watch_host(%{host: nil} = state) do
    case state.registry.up(state.supervisor) do
      nil -> state
      pid -> %{state | host: {pid, Process.monitor(pid)}, polls_without_supervisor: 0}
    end
  end

  defp watch_host(state), do: state

  # Polls

  defp poll_all(state) do
    began_us = Clock.now_us()
    state = state |> watch_host() |> count_without_supervisor()
    state = Enum.reduce(WaitList.keys(state.waiters), state, &look(&2, &1))
    state |> start_some() |> arm_poll(div((Clock.now_us() - began_us) * @poll_share, 1_000))
  end

  # Counts polls, not time: while this VM is paused the supervisor cannot restart either.
  defp count_without_supervisor(%{host: nil} = state), do: update_in(state.polls_without_supervisor, &(&1 + 1))
  defp count_without_supervisor(state), do: state

  defp look(%{polls_without_supervisor: polls} = state, key) when polls >= @max_polls_without_supervisor,
    do: answer(state, key, fn _all -> true end, {:error, :supervisor_not_running})

  defp look(state, key) do
    state = subscribe(state, key)
    {hinted, state} = hinted(state, key, [])
    owners = for owner <- [state.registry.owner(state.supervisor, key), hinted], owner != nil, do: owner
    owners |> Enum.reduce(state, &wake(&2, key, &1)) |> want_start(key)
  end

  defp arm_poll(state, least_ms \\ 0) do
    if state.poll == nil and WaitList.count(state.waiters) > 0,
      do: %{state | poll: Process.send_after(self(), :poll, max(state.poll_ms, least_ms))},
      else: state
  end

  # Starts

  defp want_start(state, key) do
    if starter(state, key), do: update_in(state.starts, &StartQueue.want(&1, key)), else: state
  end

  defp starter(state, key) do
    {tried, _reason} = Map.get(state.refusals, key, {nil, nil})
    WaitList.starter(state.waiters, key, tried)
  end

  defp start_some(state) do
    case StartQueue.next(state.starts) do
      nil ->
        state

      {key, starts} ->
        start_some(
          case starter(state, key) do
            # No caller waits for this server any more.
            nil ->
              %{state | starts: StartQueue.drop(starts, key)}

            waiter ->
              %{state | starts: StartQueue.run(starts, key, elem(waiter.start, 0), start_of(state, key, waiter))}
          end
        )
    end
  end

  defp start_of(%{registry: registry, supervisor: supervisor}, key, waiter) do
    fn -> registry.start(supervisor, key, waiter.start, StartQueue.timeout_ms(Clock.until_ms(waiter.until_us))) end
  end

  # The registry may get this owner later, or never.
  defp started(state, key, _module, {:ok, owner}), do: hint(state, key, owner)

  # The next poll requests the start again.
  defp started(state, key, module, {:again, reason}) do
    if WaitList.count(state.waiters, key) > 0, do: put_in(state.refusals[key], {module, reason}), else: state
  end

  # These answers do not depend on the module.
  defp started(state, key, _module, {:error, reason}) when reason in [:cordoned, :permanently_crashed],
    do: answer(state, key, & &1.start, {:error, {:start_failed, reason}})

  # Another module may still start it. Another initial state is not tried: every caller may have its own, and a stored
  # server does not use it.
  defp started(state, key, module, {:error, reason}),
    do: state |> answer(key, &match?({^module, _}, &1.start), {:error, {:start_failed, reason}}) |> want_start(key)
end
