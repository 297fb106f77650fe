defmodule DurableHandoff.Leftovers.Receiver do
  @moduledoc false
  # What the process of `DurableHandoff.Leftovers` knows, and what each thing that happens means for it.
  #
  # Guarantees: a server is an entry of at most one share here, the latest; every entry is waited for (a word of the registry, a
  # timer, a try) and looked after by tick/2 should the registry's word be lost; every share ends, at the latest when it expires, with one
  # line in the log and one event.

  require Logger

  alias DurableHandoff.Client.Waiting
  alias DurableHandoff.{Clock, Host, Leftovers, Options, Telemetry}
  alias DurableHandoff.Host.{Departures, Existing}
  alias DurableHandoff.Leftovers.{Pace, Share}

  @most_held 300_000
  @most_remembered 1_000
  @first_rest_ms 100
  @longest_rest_ms 5_000
  # See `Pace`.
  @rush_ms 10_000

  @enforce_keys [:supervisor, :options, :pace, :draining?]
  defstruct @enforce_keys ++
              [shares: %{}, monitors: %{}, holder: %{}, queue: :queue.new(), tries: %{}, stood_down: MapSet.new()] ++
              [listening?: false, rush_until_ms: nil]

  @type t :: %__MODULE__{
          supervisor: Host.name(),
          options: Options.t(),
          pace: Pace.t(),
          draining?: boolean(),
          shares: %{reference() => Share.t()},
          monitors: %{reference() => [reference()]},
          holder: %{term() => reference()},
          queue: :queue.queue({reference(), term()}),
          tries: %{pid() => {reference(), term(), Pace.permit(), reference()}},
          stood_down: MapSet.t(pid()),
          listening?: boolean(),
          rush_until_ms: nil | integer()
        }

  @spec new(Host.name(), Options.t(), boolean()) :: t()
  def new(supervisor, options, draining?) do
    pace = Pace.new(options.concurrency, options.max_concurrency)
    %__MODULE__{supervisor: supervisor, options: options, pace: pace, draining?: draining?}
  end

  @spec draining?(t()) :: boolean()
  def draining?(receiver), do: receiver.draining?

  @spec idle?(t()) :: boolean()
  def idle?(receiver), do: receiver.shares == %{}

  # Shares: they come, become ours, go

  @doc "Takes a share in; `begin/2` has to follow."
  @spec take(t(), Share.t()) :: {:ok, t()} | {:error, :draining | :full | :known}
  def take(%{draining?: true}, _share), do: {:error, :draining}
  def take(%{shares: shares}, %{id: id}) when is_map_key(shares, id), do: {:error, :known}

  def take(receiver, share) do
    held = receiver.shares |> Map.values() |> Enum.map(&Share.size/1) |> Enum.sum()

    if held + Share.size(share) > @most_held do
      {:error, :full}
    else
      monitors = for pid <- MapSet.to_list(share.earlier) ++ share.later, do: Process.monitor(pid)
      # Of these it was told before the share came.
      share = Enum.reduce(receiver.stood_down, share, &Share.without(&2, &1))
      {:ok, put(%{receiver | monitors: Map.put(receiver.monitors, share.id, monitors)}, share)}
    end
  end

  @doc "Begins with a new share if it is this receiver's turn."
  @spec begin(t(), reference()) :: t()
  def begin(receiver, id) do
    case receiver.shares do
      %{^id => share} -> if Share.mine?(share), do: activate(receiver, share, :all), else: receiver
      %{} -> receiver
    end
  end

  @doc "Servers of a share that another receiver cannot start."
  @spec passed(t(), term(), [term()]) :: t()
  def passed(%{shares: shares} = receiver, id, keys) when is_map_key(shares, id),
    do: activate(receiver, shares[id], keys)

  def passed(receiver, _id, _keys), do: receiver

  @doc "Nothing of a share is left to be taken over."
  @spec settled(t(), term()) :: t()
  def settled(%{shares: shares} = receiver, id) when is_map_key(shares, id),
    do: receiver |> put(%{shares[id] | standby: []}) |> close(id)

  def settled(receiver, _id), do: receiver

  @doc "Another receiver is gone, or starts nothing more."
  @spec out_of_line(t(), pid(), :gone | :stood_down) :: t()
  def out_of_line(receiver, pid, how) do
    stood_down =
      case how do
        :gone -> MapSet.delete(receiver.stood_down, pid)
        :stood_down -> receiver.stood_down |> forget_too_many() |> MapSet.put(pid)
      end

    Enum.reduce(Map.keys(receiver.shares), %{receiver | stood_down: stood_down}, &without(&2, &1, pid))
  end

  # What was taken over of one share may have changed or ended another one meanwhile.
  defp without(%{shares: shares} = receiver, id, pid) when is_map_key(shares, id) do
    before = shares[id]
    share = Share.without(before, pid)
    receiver = put(receiver, share)

    if Share.mine?(share) and not Share.mine?(before) do
      log(receiver, :info, "taking over #{length(share.standby)} servers that #{share.source} left from #{node(pid)}")
      activate(receiver, share, :all)
    else
      receiver
    end
  end

  defp without(receiver, _ended, _pid), do: receiver

  @doc "This node starts nothing more: everything is the next one's, where there is one."
  @spec stand_down(t()) :: t()
  def stand_down(receiver) do
    receiver.shares
    |> Enum.flat_map(fn {_id, share} -> share.later end)
    |> Enum.uniq()
    |> Enum.each(&Leftovers.tell(&1, {:stood_down, self()}))

    Enum.reduce(receiver.shares, %{receiver | draining?: true}, fn {_id, share}, receiver ->
      finish(receiver, Share.settle_all(share, if(share.later == [], do: {:dropped, :draining}, else: :passed_on)))
    end)
  end

  defp activate(receiver, share, which) do
    receiver = receiver |> listen() |> rush(share)
    {share, keys} = Share.activate(share, which)
    receiver = Enum.reduce(keys, put(receiver, share), &hold(&2, &1, share.id))
    receiver = Enum.reduce(keys, receiver, &look(&2, share.id, &1))
    close(receiver, share.id)
  end

  defp rush(receiver, share) do
    receivers = MapSet.size(share.earlier) + 1 + length(share.later)
    %{receiver | pace: Pace.rush(receiver.pace, receivers), rush_until_ms: now_ms() + @rush_ms}
  end

  # The latest share counts: an earlier one came from an earlier drain of a server that has moved, or of the same node.
  defp hold(%{holder: holder} = receiver, key, id) do
    receiver =
      case holder do
        %{^key => earlier} when earlier != id -> settle(receiver, earlier, key, :passed_on)
        %{} -> receiver
      end

    %{receiver | holder: Map.put(receiver.holder, key, id)}
  end

  # One server: from the first look to its end

  @doc "What the registry says has changed."
  @spec changed(t(), Departures.change()) :: t()
  def changed(%{holder: holder} = receiver, {:down, key, node}) when is_map_key(holder, key) do
    id = holder[key]
    if receiver.shares[id].source == node, do: enqueue(receiver, id, key, :waiting), else: receiver
  end

  def changed(%{holder: holder} = receiver, {:up, key, node}) when is_map_key(holder, key) do
    %{source: source, entries: entries} = receiver.shares[holder[key]]

    # What is being tried may be what came up: its own answer tells.
    if node == source or entries[key].phase == :trying,
      do: receiver,
      else: settle(receiver, holder[key], key, :running)
  end

  def changed(receiver, _not_ours), do: receiver

  @doc "An entry in `phase` is to be tried."
  @spec enqueue(t(), term(), term(), Share.phase()) :: t()
  def enqueue(receiver, id, key, phase) do
    case receiver.shares do
      %{^id => %{entries: %{^key => %{phase: ^phase}}} = share} ->
        receiver = put(receiver, Share.put(share, key, phase: :queued))
        %{receiver | queue: :queue.in({id, key}, receiver.queue)}

      %{} ->
        receiver
    end
  end

  @doc "Starts as many tries as the pace allows."
  @spec pump(t()) :: t()
  def pump(receiver) do
    case next(receiver) do
      {nil, receiver} ->
        receiver

      {{id, key, entry}, receiver} ->
        case Pace.take(receiver.pace) do
          {nil, pace} -> %{receiver | pace: pace, queue: :queue.in_r({id, key}, receiver.queue)}
          {permit, pace} -> %{receiver | pace: pace} |> try_one(id, key, entry, permit) |> pump()
        end
    end
  end

  # The first of the queue that is still to be tried.
  defp next(receiver) do
    case :queue.out(receiver.queue) do
      {:empty, _queue} ->
        {nil, receiver}

      {{:value, {id, key}}, queue} ->
        receiver = %{receiver | queue: queue}

        case receiver.shares do
          %{^id => %{entries: %{^key => %{phase: :queued} = entry}}} -> {{id, key, entry}, receiver}
          %{} -> next(receiver)
        end
    end
  end

  defp try_one(receiver, id, key, entry, permit) do
    share = receiver.shares[id]
    {parent, supervisor, source} = {self(), receiver.supervisor, share.source}
    timeout_ms = receiver.options.attempt_timeout_ms

    {pid, monitor} =
      :proc_lib.spawn_opt(
        fn ->
          started_us = Clock.now_us()
          outcome = Existing.start(supervisor, key, entry.module, source, timeout_ms)
          if outcome == :started, do: tell_callers(supervisor, key)
          send(parent, {:tried, self(), outcome, Clock.now_us() - started_us})
        end,
        [:monitor]
      )

    receiver = put(receiver, Share.put(share, key, phase: :trying))
    %{receiver | tries: Map.put(receiver.tries, pid, {id, key, permit, monitor})}
  end

  # Callers wait for it on nodes whose registry may be late.
  defp tell_callers(supervisor, key) do
    with {:here, pid} <- Host.lookup(supervisor, key), do: Waiting.announce(supervisor, key, pid)
  end

  @doc "What came of a try."
  @spec tried(t(), pid(), Existing.outcome(), non_neg_integer()) :: t()
  def tried(%{tries: tries} = receiver, pid, outcome, latency_us) when is_map_key(tries, pid) do
    {{id, key, permit, monitor}, tries} = Map.pop!(tries, pid)
    Process.demonitor(monitor, [:flush])
    pace = Pace.give(receiver.pace, permit, latency_us, verdict(outcome))
    receiver = %{receiver | tries: tries, pace: pace}

    # The share may be gone, or the entry superseded.
    case receiver.shares do
      %{^id => %{entries: %{^key => %{phase: :trying} = entry}}} -> result(receiver, id, key, entry, outcome)
      %{} -> receiver
    end
  end

  def tried(receiver, _pid, _outcome, _latency_us), do: receiver

  @doc "A process has ended: one that tried without an answer, or another receiver."
  @spec down(t(), pid()) :: t()
  def down(%{tries: tries} = receiver, pid) when is_map_key(tries, pid),
    do: tried(receiver, pid, {:failed, :unknown}, 0)

  def down(receiver, pid), do: out_of_line(receiver, pid, :gone)

  defp verdict(:started), do: :served
  defp verdict({:failed, :store}), do: :overload
  defp verdict(_not_the_store), do: :neutral

  defp result(receiver, id, key, _entry, :started), do: settle(receiver, id, key, :started)
  defp result(receiver, id, key, _entry, {:running, _node}), do: settle(receiver, id, key, :running)
  defp result(receiver, id, key, _entry, {:left_alone, _status}), do: settle(receiver, id, key, {:dropped, :left_alone})
  # It may have gone down while it was tried: then the word of it has been heard, and there is no other.
  defp result(receiver, id, key, _entry, {:wait, :still_running}),
    do: receiver |> phase(id, key, :waiting) |> look(id, key)

  defp result(receiver, id, key, _entry, {:wait, {:locked, lock}}), do: phase(receiver, id, key, {:locked, lock})
  defp result(receiver, id, key, entry, {:wait, _passing}), do: rest(receiver, id, key, entry)
  defp result(receiver, _id, _key, _entry, {:refused, :draining}), do: stand_down(receiver)

  defp result(receiver, id, key, entry, {:refused, :full}) do
    case receiver.shares[id].later do
      [next | _others] ->
        Leftovers.tell(next, {:pass, id, [key]})
        settle(receiver, id, key, :passed_on)

      [] ->
        rest(receiver, id, key, entry)
    end
  end

  defp result(receiver, id, key, entry, {:failed, :server}) do
    entry = %{entry | faults: entry.faults + 1}

    if entry.faults >= receiver.options.max_attempts,
      do: settle(receiver, id, key, {:dropped, :failed}),
      else: rest(receiver, id, key, entry)
  end

  defp result(receiver, id, key, entry, {:failed, _store_or_unknown}), do: rest(receiver, id, key, entry)

  defp phase(receiver, id, key, phase), do: put(receiver, Share.put(receiver.shares[id], key, phase: phase))

  defp rest(receiver, id, key, entry) do
    Process.send_after(self(), {:rested, id, key}, min(@first_rest_ms * 2 ** min(entry.tries, 10), @longest_rest_ms))
    changes = [phase: :resting, tries: entry.tries + 1, faults: entry.faults]
    put(receiver, Share.put(receiver.shares[id], key, changes))
  end

  defp settle(receiver, id, key, why) do
    receiver = if receiver.holder[key] == id, do: %{receiver | holder: Map.delete(receiver.holder, key)}, else: receiver
    receiver |> put(Share.settle(receiver.shares[id], key, why)) |> close(id)
  end

  # Time

  @doc "Once a second: what has been here too long goes; what waits is looked at, should a word of the registry have been lost."
  @spec tick(t(), integer()) :: t()
  def tick(receiver, now_ms) do
    Enum.reduce(receiver.shares, calm(receiver, now_ms), fn {id, share}, receiver ->
      if Share.expired?(share, now_ms) do
        finish(receiver, Share.settle_all(share, {:dropped, :expired}))
      else
        receiver = Enum.reduce(Share.in_phase(share, &(&1 == :waiting)), receiver, &look(&2, id, &1))
        unlock(receiver, share)
      end
    end)
  end

  defp calm(%{rush_until_ms: nil} = receiver, _now_ms), do: receiver

  defp calm(receiver, now_ms) do
    stopping? = Enum.any?(receiver.shares, fn {_id, share} -> Share.in_phase(share, &(&1 == :waiting)) != [] end)

    if stopping? and now_ms < receiver.rush_until_ms,
      do: receiver,
      else: %{receiver | pace: Pace.calm(receiver.pace), rush_until_ms: nil}
  end

  # Where it is now, by this node's registry.
  defp look(receiver, id, key) do
    case receiver.shares do
      %{^id => %{entries: %{^key => %{phase: :waiting}}, source: source}} ->
        case Existing.where(receiver.supervisor, key, source) do
          nil -> enqueue(receiver, id, key, :waiting)
          :at_source -> receiver
          {:running, _node} -> settle(receiver, id, key, :running)
        end

      %{} ->
        receiver
    end
  end

  defp unlock(receiver, share) do
    locked = for {key, %{phase: {:locked, lock}}} <- share.entries, do: {lock, key}
    locks = locked |> Enum.map(fn {lock, _key} -> lock end) |> Enum.uniq()
    open = locks |> Enum.filter(&Existing.open?(receiver.supervisor, &1)) |> MapSet.new()

    Enum.reduce(locked, receiver, fn {lock, key}, receiver ->
      if lock in open, do: enqueue(receiver, share.id, key, {:locked, lock}), else: receiver
    end)
  end

  # The end of a share

  # Whoever is later in line need not keep it, unless some of it was passed on: that may have to be taken over once more.
  defp close(receiver, id) do
    case receiver.shares do
      %{^id => %{standby: [], entries: none} = share} when none == %{} ->
        if share.passed_on == 0, do: Enum.each(share.later, &Leftovers.tell(&1, {:settled, id}))
        finish(receiver, share)

      %{} ->
        receiver
    end
  end

  defp finish(receiver, share) do
    {monitors, others} = Map.pop(receiver.monitors, share.id, [])
    Enum.each(monitors, &Process.demonitor(&1, [:flush]))
    if share.total > 0, do: announce(receiver, share)
    holder = Map.reject(receiver.holder, fn {_key, id} -> id == share.id end)
    mute(%{receiver | shares: Map.delete(receiver.shares, share.id), monitors: others, holder: holder})
  end

  defp announce(receiver, share) do
    level = if share.dropped == %{}, do: :info, else: :warning
    log(receiver, level, to_string(share))
    Telemetry.leftovers_stop(receiver.supervisor, share)
  end

  defp listen(%{listening?: true} = receiver), do: receiver

  # Without registry events the receiver still polls once a second.
  defp listen(receiver) do
    with {:error, reason} <- Departures.subscribe(receiver.supervisor),
         do: log(receiver, :warning, "could not subscribe to the registry, polling only: #{inspect(reason, limit: 10)}")

    %{receiver | listening?: true}
  end

  defp mute(%{listening?: true, shares: shares} = receiver) when shares == %{} do
    Departures.unsubscribe(receiver.supervisor)
    %{receiver | listening?: false}
  end

  defp mute(receiver), do: receiver

  defp now_ms, do: System.monotonic_time(:millisecond)

  defp put(receiver, share), do: %{receiver | shares: Map.put(receiver.shares, share.id, share)}

  defp forget_too_many(pids), do: if(MapSet.size(pids) >= @most_remembered, do: MapSet.new(), else: pids)

  defp log(receiver, level, text), do: Logger.log(level, "[durable_handoff] #{inspect(receiver.supervisor)}: #{text}")
end
