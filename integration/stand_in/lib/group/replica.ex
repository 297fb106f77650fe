defmodule Group.Replica do
  @moduledoc """
  This node's copy of a `Group`, and the only writer of this node's part of it.

  Each replica owns the rows of its own node's processes and copies those of its peers. A replica greets the
  replica of every new node. Two replicas that have met send each other all rows that they own, then every
  change. When a replica or its node is gone, the others delete its rows. Messages of one peer arrive in
  order, so a copy is never wrong, only late.

  OTP's `:pg` is not used, because a scope of OTP 25 crashes at the first message of OTP 29, and test clusters
  have both.

  A row is `{id, pid, meta, stamp}` with `id` either `{:registered, key}` or `{:joined, key, pid}`. The stamp
  orders two registrations of one key. A new stamp is higher than the one that it replaces, so a takeover wins
  even on nodes with slower clocks.
  """

  use GenServer

  alias Group.{Event, Subscribers}

  @spec name(atom()) :: atom()
  def name(group), do: :"#{group}_group"

  @spec table(atom()) :: atom()
  def table(group), do: :"#{group}_group_rows"

  @spec start_link(atom()) :: GenServer.on_start()
  def start_link(group), do: GenServer.start_link(__MODULE__, group, name: name(group))

  @impl true
  def init(group) do
    :ets.new(table(group), [:named_table, :ordered_set, :protected, read_concurrency: true])
    # One process does the work of the package's eight processes. Its backlog is the registry's lag.
    Process.flag(:priority, :high)
    :ok = :net_kernel.monitor_nodes(true)
    state = %{group: group, peers: %{}, local: %{}, subscribers: %{}}
    Enum.each(Node.list(), &hello(&1, state))
    {:ok, state}
  end

  @impl true
  def handle_call({:register, key, pid, meta}, _from, state) do
    case find(state, {:registered, key}) do
      {_id, holder, held, _stamp} when holder != pid and node(holder) == node() ->
        if Process.alive?(holder),
          do: {:reply, {:error, {:taken, {holder, held}}}, state},
          else: {:reply, :ok, own({:registered, key}, pid, meta, state)}

      _free_or_remote_or_own ->
        {:reply, :ok, own({:registered, key}, pid, meta, state)}
    end
  end

  def handle_call({:join, key, pid, meta}, _from, state),
    do: {:reply, :ok, own({:joined, key, pid}, pid, meta, state)}

  def handle_call({:drop, id, pid}, _from, state), do: {:reply, :ok, disown([id], pid, nil, state)}

  def handle_call({:monitor, pattern, pid}, _from, state),
    do: {:reply, :ok, update_in(state.subscribers, &Subscribers.add(&1, pid, pattern))}

  def handle_call({:demonitor, pattern, pid}, _from, state),
    do: {:reply, :ok, update_in(state.subscribers, &Subscribers.remove(&1, pid, pattern))}

  @impl true
  def handle_info({:nodeup, node}, state) do
    hello(node, state)
    {:noreply, state}
  end

  # The DOWN message of the monitor is handled like any other end.
  def handle_info({:nodedown, _node}, state), do: {:noreply, state}

  # The answer is sent even when the peer is already known: it may have lost earlier messages.
  def handle_info({:hello, peer}, state) when is_map_key(state.peers, peer) do
    send(peer, {:rows, self(), rows_of(node(), state)})
    {:noreply, state}
  end

  def handle_info({:hello, peer}, state), do: {:noreply, meet(peer, state)}

  def handle_info({:rows, peer, rows}, state) do
    state = meet(peer, state)
    kept = MapSet.new(rows, fn {id, pid, _meta, _stamp} -> {id, pid} end)
    gone = for {id, pid, _, _} <- rows_of(node(peer), state), {id, pid} not in kept, do: {id, pid}
    state = Enum.reduce(gone, state, fn {id, pid}, acc -> drop(id, pid, nil, acc) end)
    {:noreply, Enum.reduce(rows, state, &put/2)}
  end

  def handle_info({:put, row}, state), do: {:noreply, put(row, state)}

  def handle_info({:drop, ids, pid, reason}, state),
    do: {:noreply, Enum.reduce(ids, state, &drop(&1, pid, reason, &2))}

  def handle_info({:DOWN, _ref, :process, peer, _reason}, state) when is_map_key(state.peers, peer),
    do: {:noreply, part(peer, state)}

  def handle_info({:DOWN, _ref, :process, pid, reason}, state) do
    state = update_in(state.subscribers, &Subscribers.forget(&1, pid))

    case state.local do
      %{^pid => {_ref, ids}} -> {:noreply, disown(MapSet.to_list(ids), pid, reason, state)}
      %{} -> {:noreply, state}
    end
  end

  # The message is lost where this group does not run. When the group starts there, it announces itself.
  defp hello(node, state), do: send({name(state.group), node}, {:hello, self()})

  defp meet(peer, state) when is_map_key(state.peers, peer), do: state

  defp meet(peer, state) do
    send(peer, {:hello, self()})
    send(peer, {:rows, self(), rows_of(node(), state)})
    put_in(state.peers[peer], Process.monitor(peer))
  end

  defp part(peer, state) do
    state = %{state | peers: Map.delete(state.peers, peer)}

    Enum.reduce(rows_of(node(peer), state), state, fn {id, pid, _, _}, acc ->
      drop(id, pid, {:nodedown, node(pid)}, acc)
    end)
  end

  # Rows of this node's own processes: this node changes and monitors them, and sends the changes to every
  # peer.

  defp own(id, pid, meta, state) do
    row = {id, pid, meta, stamp_after(find(state, id))}
    {ref, ids} = Map.get_lazy(state.local, pid, fn -> {Process.monitor(pid), MapSet.new()} end)
    state = put_in(state.local[pid], {ref, MapSet.put(ids, id)})
    broadcast({:put, row}, state)
    put(row, state)
  end

  defp disown(ids, pid, reason, state) do
    broadcast({:drop, ids, pid, reason}, state)
    state = Enum.reduce(ids, state, &drop(&1, pid, reason, &2))

    with %{^pid => {ref, owned}} <- state.local do
      rest = MapSet.difference(owned, MapSet.new(ids))

      if MapSet.size(rest) == 0 do
        Process.demonitor(ref, [:flush])
        %{state | local: Map.delete(state.local, pid)}
      else
        put_in(state.local[pid], {ref, rest})
      end
    else
      _not_local -> state
    end
  end

  defp stamp_after(nil), do: System.system_time(:microsecond)
  defp stamp_after({_id, _pid, _meta, stamp}), do: max(System.system_time(:microsecond), stamp + 1)

  # Rows of any node: the table and the events.

  defp put({id, pid, meta, stamp} = row, state) do
    case find(state, id) do
      nil ->
        store(row, nil, state)

      {_id, ^pid, previous, _stamp} ->
        store(row, previous, state)

      {_id, other, _meta, other_stamp} = loser when {stamp, pid} > {other_stamp, other} ->
        publish(:gone, loser, nil, :conflict, state)
        evict(loser, pid)
        store(row, nil, state)

      {_id, winner, _meta, _stamp} ->
        evict({id, pid, meta, stamp}, winner)
        state
    end
  end

  defp store(row, previous, state) do
    :ets.insert(table(state.group), row)
    publish(:present, row, previous, nil, state)
    state
  end

  defp drop(id, pid, reason, state) do
    case find(state, id) do
      {_id, ^pid, _meta, _stamp} = row ->
        :ets.delete(table(state.group), id)
        publish(:gone, row, nil, reason, state)
        state

      _other_or_none ->
        state
    end
  end

  defp evict({{:registered, key}, loser, meta, _stamp}, _winner) when node(loser) == node(),
    do: Process.exit(loser, {:group_registry_conflict, key, meta})

  defp evict(_row, _winner), do: true

  defp find(state, id) do
    case :ets.lookup(table(state.group), id) do
      [row] -> row
      [] -> nil
    end
  end

  defp rows_of(node, state) do
    for {_id, pid, _meta, _stamp} = row <- :ets.tab2list(table(state.group)), node(pid) == node, do: row
  end

  defp broadcast(message, state), do: Enum.each(Map.keys(state.peers), &send(&1, message))

  defp publish(change, {id, pid, meta, _stamp}, previous, reason, state) do
    {type, key} = describe(change, id)

    fields = [
      type: type,
      supervisor: state.group,
      key: key,
      pid: pid,
      meta: meta,
      previous_meta: previous,
      reason: reason
    ]

    Subscribers.publish(state.subscribers, state.group, [struct!(Event, fields)])
  end

  defp describe(:present, {:registered, key}), do: {:registered, key}
  defp describe(:present, {:joined, key, _pid}), do: {:joined, key}
  defp describe(:gone, {:registered, key}), do: {:unregistered, key}
  defp describe(:gone, {:joined, key, _pid}), do: {:left, key}
end
