defmodule Group.Replica do
  @moduledoc """
  This node's copy of a `Group`, and the only writer of this node's part of it.

  Each replica owns the rows of its own node's processes and copies those of its peers. Replicas find one another through
  the `:pg` scope: a replica that sees a peer join sends it all rows it owns, then every change; a replica that sees a peer
  leave forgets the rows of that node. Messages from one peer arrive in order, so a copy is never wrong, only late.

  A row is `{id, pid, meta, stamp}` with `id` either `{:registered, key}` or `{:joined, key, pid}`. The stamp orders two
  registrations of one key; it is taken above the one it replaces, so a takeover wins on nodes with slower clocks too.
  """

  use GenServer

  alias Group.{Event, Subscribers}

  @peers :replicas

  @spec name(atom()) :: atom()
  def name(group), do: :"#{group}_group"

  @spec table(atom()) :: atom()
  def table(group), do: :"#{group}_group_rows"

  @spec scope(atom()) :: atom()
  def scope(group), do: :"#{group}_pg"

  @spec start_link(atom()) :: GenServer.on_start()
  def start_link(group), do: GenServer.start_link(__MODULE__, group, name: name(group))

  @impl true
  def init(group) do
    :ets.new(table(group), [:named_table, :ordered_set, :protected, read_concurrency: true])
    {watch, peers} = :pg.monitor(scope(group), @peers)
    :ok = :pg.join(scope(group), @peers, self())
    state = %{group: group, watch: watch, peers: MapSet.new(), local: %{}, subscribers: %{}}
    {:ok, Enum.reduce(peers, state, &greet/2)}
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
  def handle_info({watch, :join, @peers, pids}, %{watch: watch} = state),
    do: {:noreply, Enum.reduce(pids, state, &greet/2)}

  def handle_info({watch, :leave, @peers, pids}, %{watch: watch} = state),
    do: {:noreply, Enum.reduce(pids, state, &part/2)}

  def handle_info({:rows, peer, rows}, state) do
    kept = MapSet.new(rows, fn {id, pid, _meta, _stamp} -> {id, pid} end)
    gone = for {id, pid, _, _} <- rows_of(node(peer), state), {id, pid} not in kept, do: {id, pid}
    state = Enum.reduce(gone, state, fn {id, pid}, acc -> drop(id, pid, nil, acc) end)
    {:noreply, Enum.reduce(rows, state, &put/2)}
  end

  def handle_info({:put, row}, state), do: {:noreply, put(row, state)}

  def handle_info({:drop, ids, pid, reason}, state),
    do: {:noreply, Enum.reduce(ids, state, &drop(&1, pid, reason, &2))}

  def handle_info({:DOWN, _ref, :process, pid, reason}, state) do
    state = update_in(state.subscribers, &Subscribers.forget(&1, pid))

    case state.local do
      %{^pid => {_ref, ids}} -> {:noreply, disown(MapSet.to_list(ids), pid, reason, state)}
      %{} -> {:noreply, state}
    end
  end

  defp greet(peer, state) when node(peer) == node(), do: state

  defp greet(peer, state) do
    send(peer, {:rows, self(), rows_of(node(), state)})
    %{state | peers: MapSet.put(state.peers, peer)}
  end

  defp part(peer, state) do
    state = %{state | peers: MapSet.delete(state.peers, peer)}

    if node(peer) == node(),
      do: state,
      else:
        Enum.reduce(rows_of(node(peer), state), state, fn {id, pid, _, _}, acc -> drop(id, pid, :noconnection, acc) end)
  end

  # Rows of this node's own processes: changed here, watched here, told to every peer.

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

  defp evict({{:registered, key}, loser, _meta, _stamp}, winner) when node(loser) == node(),
    do: Process.exit(loser, {:shutdown, {:group_conflict, key, winner}})

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

  defp broadcast(message, state), do: Enum.each(state.peers, &send(&1, message))

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
