defmodule DurableHandoff.Leftovers.State do
  @moduledoc false
  # State machine of the process of `DurableHandoff.Leftovers`.
  #
  # Guarantees: a server is an entry of at most one adoption here, the latest. Each entry waits for a registry
  # event, a timer or the end of a start; `tick/2` polls for those whose event was lost. Every adoption ends,
  # at the latest when it expires, and if servers were this receiver's turn, with one line in the log and one event.

  alias DurableHandoff.{Clock, Host, Options, Status}
  alias DurableHandoff.Host.{Registry, Takeover}
  alias DurableHandoff.Leftovers.{Adoption, Announcement, Message, Starts}

  @most_held 300_000
  @most_remembered 1_000
  # An offer that was sent before its receiver stood down, forwarded servers or settled all, arrives within the time that
  # its sender waits for answers.
  @remembered_us 10_000_000
  @first_rest_ms 100
  @longest_rest_ms 5_000
  # See `Pace`.
  @rush_us 10_000_000

  @enforce_keys [:supervisor, :options, :starts, :draining?]
  defstruct @enforce_keys ++
              [adoptions: %{}, monitors: %{}, holder: %{}, queue: :queue.new(), stood_down: %{}, early: %{}] ++
              [subscribed_to: nil, ticking?: false, rush_until_us: nil]

  @type t :: %__MODULE__{
          supervisor: Host.name(),
          options: Options.t(),
          starts: Starts.t(),
          draining?: boolean(),
          adoptions: %{reference() => Adoption.t()},
          monitors: %{reference() => [reference()]},
          holder: %{term() => reference()},
          queue: :queue.queue({reference(), term()}),
          stood_down: %{pid() => at_us :: integer()},
          early: %{reference() => {:settled | [forwarded_key :: term()], at_us :: integer()}},
          subscribed_to: nil | {host :: pid() | nil},
          ticking?: boolean(),
          rush_until_us: nil | integer()
        }

  @spec new(Host.name(), Options.t(), boolean()) :: t()
  def new(supervisor, options, draining?) do
    starts = Starts.new(options.concurrency, options.max_concurrency)
    %__MODULE__{supervisor: supervisor, options: options, starts: starts, draining?: draining?}
  end

  @spec idle?(t()) :: boolean()
  def idle?(state), do: state.adoptions == %{}

  @doc "Every server of this receiver with its phase."
  @spec held(t()) :: %{term() => :pending | Adoption.phase()}
  def held(state) do
    for {_id, adoption} <- state.adoptions,
        {key, phase} <-
          Enum.map(adoption.pending, fn {key, _module} -> {key, :pending} end) ++
            Enum.map(adoption.entries, fn {key, entry} -> {key, entry.phase} end),
        into: %{},
        do: {key, phase}
  end

  # Offers

  @doc "Accepts an offer; `begin/2` has to follow."
  @spec accept(t(), Adoption.t()) :: {:ok, t()} | {:error, :draining | :full | :known}
  def accept(%{draining?: true}, _adoption), do: {:error, :draining}
  def accept(%{adoptions: adoptions}, %{id: id}) when is_map_key(adoptions, id), do: {:error, :known}

  def accept(state, adoption) do
    held = state.adoptions |> Map.values() |> Enum.map(&Adoption.size/1) |> Enum.sum()

    if held + Adoption.size(adoption) > @most_held do
      {:error, :full}
    else
      monitors = for pid <- MapSet.to_list(adoption.earlier) ++ adoption.later, do: Process.monitor(pid)
      # Receivers that stood down just before this offer came. One that did so earlier has accepted servers again since
      # then: otherwise it would not be in the line.
      since_us = Clock.now_us() - @remembered_us
      lately = for {pid, at_us} <- state.stood_down, at_us > since_us, do: pid
      adoption = Enum.reduce(lately, adoption, &Adoption.without(&2, &1))
      {:ok, put(%{state | monitors: Map.put(state.monitors, adoption.id, monitors)}, adoption)}
    end
  end

  @doc "Starts the servers of a new adoption if it is this receiver's turn, or those that were forwarded to it."
  @spec begin(t(), reference()) :: t()
  def begin(state, id) do
    {{told, _at_us}, early} = Map.pop(state.early, id, {[], nil})
    state = %{state | early: early}

    case state.adoptions do
      %{^id => _settled} when told == :settled ->
        settled(state, id)

      %{^id => adoption} ->
        which = if Adoption.mine?(adoption), do: :all, else: told
        if which == [], do: state, else: activate(state, adoption, which)

      %{} ->
        state
    end
  end

  @doc "Adopts servers that an earlier receiver in the line cannot start."
  @spec forwarded(t(), term(), [term()]) :: t()
  def forwarded(%{adoptions: adoptions} = state, id, keys) when is_map_key(adoptions, id),
    do: activate(state, adoptions[id], keys)

  def forwarded(state, id, keys) do
    case state.early do
      %{^id => {before, _at_us}} when is_list(before) -> remember(state, id, keys ++ before)
      %{} -> remember(state, id, keys)
    end
  end

  @doc "No server of an adoption is left for this receiver."
  @spec settled(t(), term()) :: t()
  def settled(%{adoptions: adoptions} = state, id) when is_map_key(adoptions, id),
    do: state |> put(%{adoptions[id] | pending: []}) |> close(id)

  def settled(state, id), do: remember(state, id, :settled)

  # The offer comes from another node than this, and may be on its way.
  defp remember(state, id, told) do
    now_us = Clock.now_us()
    early = Map.filter(state.early, fn {_id, {_told, at_us}} -> at_us > now_us - @remembered_us end)
    %{state | early: early |> forget_too_many() |> Map.put(id, {told, now_us})}
  end

  @doc "`source` was uncordoned: what still runs there stays."
  @spec resumed(t(), node()) :: t()
  def resumed(%{supervisor: supervisor} = state, source) do
    stays? = &Takeover.at_source?(supervisor, &1, source)

    Enum.reduce(state.adoptions, state, fn
      {id, %{source: ^source} = adoption}, state ->
        adoption = %{adoption | pending: Enum.reject(adoption.pending, fn {key, _module} -> stays?.(key) end)}
        forwarded = for {key, _receiver} <- Adoption.forwarded(adoption), do: key
        staying = Enum.filter(Adoption.waiting(adoption) ++ forwarded, stays?)
        # The last one may end the adoption.
        Enum.reduce(staying, put(state, adoption), &settle(&2, id, &1, :running)) |> close(id)

      _of_another_node, state ->
        state
    end)
  end

  @doc "Another receiver is gone, or starts nothing more."
  @spec drop_receiver(t(), pid(), :gone | :stood_down) :: t()
  def drop_receiver(state, pid, how) do
    stood_down =
      case how do
        :gone -> Map.delete(state.stood_down, pid)
        :stood_down -> state.stood_down |> forget_too_many() |> Map.put(pid, Clock.now_us())
      end

    Enum.reduce(Map.keys(state.adoptions), %{state | stood_down: stood_down}, &without(&2, &1, pid))
  end

  # Taking over one adoption can change or end another one.
  defp without(%{adoptions: adoptions} = state, id, pid) when is_map_key(adoptions, id) do
    before = adoptions[id]
    adoption = Adoption.without(before, pid)
    state = put(state, adoption)

    state =
      if Adoption.mine?(adoption) and not Adoption.mine?(before) do
        Announcement.taken_over(state.supervisor, adoption, node(pid))
        activate(state, adoption, :all)
      else
        state
      end

    # That receiver starts these no more, and the next one waits for this node.
    for {key, ^pid} <- Adoption.forwarded(adoption), reduce: state do
      state -> enqueue(state, id, key, {:forwarded, pid})
    end
  end

  defp without(state, _ended, _pid), do: state

  @doc """
  This node starts no more servers: the next receivers in the line, if there are any, adopt all of them. Those
  before it forward none to it any more.
  """
  @spec stand_down(t()) :: t()
  def stand_down(state) do
    # What was forwarded to this receiver is not the next one's turn while an earlier one runs.
    for {id, %{entries: entries, later: [next | _others]} = adoption} when entries != %{} <- state.adoptions,
        not Adoption.mine?(adoption),
        do: Message.forward(next, id, Map.keys(entries))

    state.adoptions
    |> Enum.flat_map(fn {_id, adoption} -> MapSet.to_list(adoption.earlier) ++ adoption.later end)
    |> Enum.uniq()
    |> Enum.each(&Message.stood_down(&1, self()))

    Enum.reduce(state.adoptions, %{state | draining?: true}, fn {_id, adoption}, state ->
      finish(
        state,
        Adoption.settle_all(adoption, if(adoption.later == [], do: {:dropped, :draining}, else: :forwarded))
      )
    end)
  end

  @doc """
  Before the answer to a source: starts servers again if this node does. Servers that other receivers have adopted
  meanwhile stay with them.
  """
  @spec ready(t()) :: t()
  def ready(%{draining?: true, supervisor: supervisor} = state),
    do: %{state | draining?: Status.marked?(supervisor) or Status.draining?(supervisor)}

  def ready(state), do: state

  defp activate(state, adoption, which) do
    state = state |> subscribe() |> rush(adoption)
    {adoption, keys} = Adoption.activate(adoption, which)
    state = Enum.reduce(keys, put(state, adoption), &hold(&2, &1, adoption.id))
    state = Enum.reduce(keys, state, &locate(&2, adoption.id, &1))
    close(state, adoption.id)
  end

  defp rush(state, adoption),
    do: %{state | starts: Starts.rush(state.starts, adoption.receivers), rush_until_us: Clock.now_us() + @rush_us}

  # The latest adoption counts. An earlier one is from an earlier drain, of the same node or of the node from
  # which the server has moved since.
  defp hold(%{holder: holder} = state, key, id) do
    state =
      case holder do
        %{^key => earlier} when earlier != id -> settle(state, earlier, key, offered_again(state, earlier, key))
        %{} -> state
      end

    %{state | holder: Map.put(state.holder, key, id)}
  end

  # What was forwarded is still with a later receiver, which may go down.
  defp offered_again(state, id, key),
    do: if(match?(%{phase: {:forwarded, _receiver}}, entry(state, id, key)), do: :forwarded, else: :offered_again)

  # One server, from the first lookup to its end

  @doc "A key was registered or unregistered by a process on `node`."
  @spec registry_event(t(), :registered | :unregistered, term(), node()) :: t()
  def registry_event(%{holder: holder} = state, :unregistered, key, node) when is_map_key(holder, key) do
    id = holder[key]
    if state.adoptions[id].source == node, do: enqueue(state, id, key, :waiting), else: state
  end

  def registry_event(%{holder: holder} = state, :registered, key, node) when is_map_key(holder, key) do
    id = holder[key]
    if state.adoptions[id].source == node, do: state, else: confirm(state, id, key)
  end

  def registry_event(state, _type, _other_key, _node), do: state

  # The start of a registered server may still fail, and then nothing else starts it. Trying to start it here
  # finds out. A try that runs already reports its own outcome.
  defp confirm(state, id, key) do
    case state.adoptions[id].entries[key].phase do
      phase when phase in [:queued, :trying] -> state
      # The receiver that is to start it finds out whether it has started.
      {:forwarded, _receiver} -> settle(state, id, key, :forwarded)
      phase -> enqueue(state, id, key, phase)
    end
  end

  @doc "Queues an entry if it is in `phase`."
  @spec enqueue(t(), term(), term(), Adoption.phase()) :: t()
  def enqueue(state, id, key, phase) do
    case entry(state, id, key) do
      %{phase: ^phase} -> %{phase(state, id, key, :queued) | queue: :queue.in({id, key}, state.queue)}
      _settled_or_in_another -> state
    end
  end

  # nil when the adoption has ended, or a later one holds the server.
  defp entry(state, id, key),
    do: with(%{^id => %{entries: %{^key => entry}}} <- state.adoptions, do: entry, else: (_ -> nil))

  @doc "Starts as many queued servers as the pace allows."
  @spec pump(t()) :: t()
  def pump(state) do
    with {{:value, {id, key} = server}, queue} <- :queue.out(state.queue) do
      case entry(state, id, key) do
        %{phase: :queued, module: module} -> run(%{state | queue: queue}, server, module)
        _not_queued_any_more -> pump(%{state | queue: queue})
      end
    else
      {:empty, _queue} -> state
    end
  end

  defp run(%{supervisor: supervisor, options: options} = state, {id, key} = server, module) do
    source = state.adoptions[id].source

    case Starts.run(state.starts, supervisor, server, module, source, options.attempt_timeout_ms) do
      {:started, starts} -> %{state | starts: starts} |> phase(id, key, :trying) |> pump()
      {:full, starts} -> %{state | starts: starts, queue: :queue.in_r(server, state.queue)}
    end
  end

  @doc "The outcome of the start that ran as `pid`."
  @spec tried(t(), pid(), Takeover.outcome(), non_neg_integer()) :: t()
  def tried(state, pid, outcome, latency_us) do
    with {{id, key}, starts} <- Starts.ended(state.starts, pid, outcome, latency_us) do
      state = %{state | starts: starts}

      case entry(state, id, key) do
        %{phase: :trying} = entry -> result(state, id, key, entry, outcome)
        _settled_or_in_another -> state
      end
    else
      nil -> state
    end
  end

  @doc "A process has ended: a start without an outcome, or another receiver."
  @spec down(t(), pid()) :: t()
  def down(state, pid) when is_map_key(state.starts.running, pid), do: tried(state, pid, {:failed, :unknown}, 0)
  def down(state, pid), do: drop_receiver(state, pid, :gone)

  defp result(state, id, key, _entry, :started), do: settle(state, id, key, :started)
  defp result(state, id, key, _entry, {:running, _node}), do: settle(state, id, key, :running)
  defp result(state, id, key, _entry, {:left_alone, _status}), do: settle(state, id, key, {:dropped, :left_alone})
  # The server may have stopped during this start; that event has already been received.
  defp result(state, id, key, _entry, {:wait, :still_running}),
    do: state |> phase(id, key, :waiting) |> locate(id, key)

  defp result(state, id, key, _entry, {:wait, {:locked, lock}}), do: phase(state, id, key, {:locked, lock})
  defp result(state, id, key, entry, {:wait, _passing}), do: rest(state, id, key, entry)
  defp result(state, _id, _key, _entry, {:refused, :draining}), do: stand_down(state)

  defp result(state, id, key, entry, {:refused, :full}) do
    case state.adoptions[id].later do
      [next | _others] ->
        Message.forward(next, id, [key])
        phase(state, id, key, {:forwarded, next})

      [] ->
        rest(state, id, key, entry)
    end
  end

  defp result(state, id, key, entry, {:failed, :server}) do
    entry = %{entry | faults: entry.faults + 1}

    if entry.faults >= state.options.max_attempts,
      do: settle(state, id, key, {:dropped, :failed}),
      else: rest(state, id, key, entry)
  end

  defp result(state, id, key, entry, {:failed, _store_or_unknown}), do: rest(state, id, key, entry)

  defp phase(state, id, key, phase), do: put(state, Adoption.put(state.adoptions[id], key, phase: phase))

  defp rest(state, id, key, entry) do
    Process.send_after(self(), {:rested, id, key}, min(@first_rest_ms * 2 ** min(entry.tries, 10), @longest_rest_ms))
    changes = [phase: :resting, tries: entry.tries + 1, faults: entry.faults]
    put(state, Adoption.put(state.adoptions[id], key, changes))
  end

  defp settle(state, id, key, why) do
    state = if state.holder[key] == id, do: %{state | holder: Map.delete(state.holder, key)}, else: state
    state |> put(Adoption.settle(state.adoptions[id], key, why)) |> close(id)
  end

  # Time

  @doc "Once a second: drops what has expired, and polls for servers whose registry event was lost."
  @spec tick(t(), integer()) :: t()
  def tick(state, now_us) do
    Enum.reduce(state.adoptions, state |> subscribe_again() |> calm(now_us), fn {id, adoption}, state ->
      if Adoption.expired?(adoption, now_us) do
        finish(state, Adoption.settle_all(adoption, {:dropped, :expired}))
      else
        state = Enum.reduce(Adoption.waiting(adoption), state, &locate(&2, id, &1))

        state =
          Enum.reduce(Adoption.forwarded(adoption), state, fn {key, _receiver}, state -> arrived(state, id, key) end)

        unlock(state, adoption)
      end
    end)
  end

  defp calm(%{rush_until_us: nil} = state, _now_us), do: state

  defp calm(state, now_us) do
    stopping? = Enum.any?(state.adoptions, fn {_id, adoption} -> Adoption.waiting(adoption) != [] end)

    if stopping? and now_us < state.rush_until_us,
      do: state,
      else: %{state | starts: Starts.calm(state.starts), rush_until_us: nil}
  end

  defp locate(state, id, key) do
    if match?(%{phase: :waiting}, entry(state, id, key)) and
         not Takeover.at_source?(state.supervisor, key, state.adoptions[id].source),
       do: enqueue(state, id, key, :waiting),
       else: state
  end

  defp arrived(state, id, key) do
    with {_place, pid} <- Host.lookup(state.supervisor, key),
         true <- node(pid) != state.adoptions[id].source do
      settle(state, id, key, :forwarded)
    else
      _down_or_at_source -> state
    end
  end

  defp unlock(state, adoption) do
    locked = for {key, %{phase: {:locked, lock}}} <- adoption.entries, do: {lock, key}
    locks = locked |> Enum.map(fn {lock, _key} -> lock end) |> Enum.uniq()
    open = locks |> Enum.filter(&Takeover.open?(state.supervisor, &1)) |> MapSet.new()

    Enum.reduce(locked, state, fn {lock, key}, state ->
      if lock in open, do: enqueue(state, adoption.id, key, {:locked, lock}), else: state
    end)
  end

  # The end of an adoption

  # Later receivers can forget the offer, unless servers were forwarded to one of them: that receiver may go
  # down, too.
  defp close(state, id) do
    case state.adoptions do
      %{^id => %{pending: [], entries: none} = adoption} when none == %{} ->
        if adoption.forwarded == 0, do: Enum.each(adoption.later, &Message.settled(&1, id))
        finish(state, adoption)

      %{} ->
        state
    end
  end

  defp finish(state, adoption) do
    {monitors, others} = Map.pop(state.monitors, adoption.id, [])
    Enum.each(monitors, &Process.demonitor(&1, [:flush]))
    if adoption.total > 0, do: Announcement.ended(state.supervisor, adoption)
    holder = Map.reject(state.holder, fn {_key, id} -> id == adoption.id end)
    unsubscribe(%{state | adoptions: Map.delete(state.adoptions, adoption.id), monitors: others, holder: holder})
  end

  # Subscribes once to each life of DurableServer's supervisor, for as long as there are adoptions. Without events the
  # receiver still polls once a second.
  defp subscribe(state) do
    host = {Host.whereis(state.supervisor)}

    if state.subscribed_to == host do
      state
    else
      with {:error, reason} <- Registry.subscribe(state.supervisor, :all),
           do: Announcement.poll_only(state.supervisor, reason)

      %{state | subscribed_to: host}
    end
  end

  defp subscribe_again(%{subscribed_to: nil} = state), do: state
  defp subscribe_again(state), do: if(Host.whereis(state.supervisor), do: subscribe(state), else: state)

  defp unsubscribe(%{subscribed_to: {_host}, adoptions: adoptions} = state) when adoptions == %{} do
    Registry.unsubscribe(state.supervisor, :all)
    %{state | subscribed_to: nil}
  end

  defp unsubscribe(state), do: state

  defp put(state, adoption), do: %{state | adoptions: Map.put(state.adoptions, adoption.id, adoption)}

  defp forget_too_many(remembered), do: if(map_size(remembered) >= @most_remembered, do: %{}, else: remembered)
end
