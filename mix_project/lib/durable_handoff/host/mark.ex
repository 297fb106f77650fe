defmodule DurableHandoff.Host.Mark do
  @moduledoc false
  # Marks whether this node takes servers for a supervisor, and tells the other nodes at once.
  #
  # | mark | set by | taken back by | local starts | heartbeats |
  # |---|---|---|---|---|
  # | `:none` | | | allowed | as they are |
  # | `:cordoned` | `cordon/1` | `uncordon/1` | refused | `"draining" => true` |
  # | `:final` | `stop/2`, DurableServer's own shutdown | nothing | refused | `"draining" => true` |
  #
  # While DurableServer shuts down it has a certain row in its table. With that row it refuses local starts,
  # and its heartbeats have `"draining" => true`. A cordon sets the same row, and a second row that says that
  # this library set it. DurableServer's `stop_discovery` also ends its discovery for good: that is the final
  # mark. On a cordoned node discovery continues, but cannot start the servers that it finds.
  #
  # Guarantees: `uncordon/1` never undoes a final mark, also when both run at the same time. A process that is
  # killed in the middle of `cordon/1` or `uncordon/1` leaves no final mark, and `repair/1` removes what it
  # left. All marks end with DurableServer's supervisor. Nothing raises when that supervisor does not run.

  alias DurableHandoff.Host

  @type t :: :none | :cordoned | :final

  @heartbeats "__heartbeat"

  @doc "The mark of the supervisor `name` on this node; `:none` when it does not run."
  @spec mark(Host.name()) :: t()
  def mark(name) do
    with table when table != nil <- table(name), [_row] <- :ets.lookup(table, :shutting_down) do
      if :ets.lookup(table, __MODULE__) == [{__MODULE__, :cordoned}], do: :cordoned, else: :final
    else
      _none -> :none
    end
  rescue
    ArgumentError -> :none
  end

  @doc "Cordons this node. A final mark stays as it is."
  @spec cordon(Host.name()) :: {:ok, t()} | {:error, :supervisor_not_running}
  def cordon(name) do
    change(name, fn table ->
      # The row of the owner is written first: without it the other row would count as final.
      if not :ets.member(table, :shutting_down) do
        :ets.insert_new(table, {__MODULE__, :cordoned})
        :ets.insert(table, {:shutting_down, true})
      end
    end)
  end

  @doc "Undoes `cordon/1`. A final mark stays as it is."
  @spec uncordon(Host.name()) :: {:ok, t()} | {:error, :supervisor_not_running}
  def uncordon(name) do
    change(name, fn table ->
      if :ets.lookup(table, __MODULE__) == [{__MODULE__, :cordoned}] do
        :ets.delete(table, :shutting_down)
        # The row of the owner is deleted last, for the same reason.
        :ets.select_delete(table, [{{__MODULE__, :cordoned}, [], [true]}])
        restore_final(table)
      end
    end)
  end

  @doc """
  Completes a `cordon/1` or `uncordon/1` whose process was killed. Calls must not run at the same time.
  """
  @spec repair(Host.name()) :: {:ok, t()} | {:error, :supervisor_not_running}
  def repair(name) do
    change(name, fn table ->
      if not :ets.member(table, :shutting_down) do
        :ets.select_delete(table, [{{__MODULE__, :cordoned}, [], [true]}])
        restore_final(table)
      end
    end)
  end

  # stop/2 writes its own row before DurableServer sets its row, which `uncordon/1` may just have deleted.
  defp restore_final(table), do: if(:ets.member(table, __MODULE__), do: :ets.insert(table, {:shutting_down, true}))

  @doc """
  Marks this node draining for good: it starts no more servers and no node picks it as a target. There is no
  way back, and doing it again is harmless.
  """
  @spec stop(Host.name(), timeout()) :: :ok | {:error, term()}
  def stop(name, timeout_ms) do
    change(name, fn table -> :ets.insert(table, {__MODULE__, :final}) end)
    manager = DurableServer.LifecycleManager
    # Before 0.1.5 DurableServer ignores the given timeout and waits for 5 s.
    arguments = if function_exported?(manager, :stop_discovery, 2), do: [name, timeout_ms], else: [name]

    case apply(manager, :stop_discovery, arguments) do
      :ok -> :ok
      other -> {:error, other}
    end
  catch
    _kind, reason -> {:error, reason}
  end

  @doc """
  Tells the other nodes the current mark at once, instead of with the next heartbeat.

  The calling process joins the heartbeat group with a copy of this node's newest heartbeat, with a stamp one
  millisecond later and the mark in its meta. Other nodes use the newest heartbeat of a node, so this copy
  counts until DurableServer writes its next one.

  `:joined`: the process has joined, or has joined again because DurableServer's newest heartbeat has another
  mark (its write can have begun before the change). `:waiting`: DurableServer has not written its next
  heartbeat yet. `:told`: it has, with the current mark.
  """
  @spec announce(Host.name()) :: :joined | :waiting | :told
  def announce(name) do
    draining? = mark(name) != :none
    own = own_heartbeats(name)
    newest = Enum.max_by(own, fn {_from, beat} -> beat.timestamp end, fn -> nil end)

    case newest do
      nil ->
        :waiting

      {from, beat} ->
        cond do
          draining?(beat) != draining? -> join(name, %{with_mark(beat, draining?) | timestamp: beat.timestamp + 1})
          from == Host.whereis(name) -> :told
          true -> :waiting
        end
    end
  catch
    # Group or the table is gone: the supervisor stops.
    _kind, _reason -> :told
  end

  @doc "Undoes `announce/1` of the calling process."
  @spec leave(Host.name()) :: :ok
  def leave(name) do
    apply(Group, :leave, [name, @heartbeats])
    :ok
  catch
    _kind, _reason -> :ok
  end

  defp join(name, beat) do
    apply(Group, :join, [name, @heartbeats, beat])
    :joined
  end

  # DurableServer's table gets a new heartbeat before the group does.
  defp own_heartbeats(name) do
    own = Atom.to_string(node())
    members = for {pid, %{node: ^own} = beat} <- apply(Group, :members, [name, @heartbeats]), do: {pid, beat}

    stored =
      for {^own, node_ref, timestamp, capacity, resources, env_vars, meta} <-
            :ets.lookup(:"durable_server_heartbeats_#{name}", own) do
        beat = %{node: own, node_ref: node_ref, timestamp: timestamp, capacity: capacity, resources: resources}
        {:table, Map.merge(beat, %{env_vars: env_vars, heartbeat_meta: meta})}
      end

    # Of two heartbeats with the same stamp the group member's counts.
    members ++ stored
  end

  defp draining?(%{heartbeat_meta: %{"draining" => true}}), do: true
  defp draining?(_beat), do: false

  defp with_mark(beat, true), do: %{beat | heartbeat_meta: Map.put(beat.heartbeat_meta || %{}, "draining", true)}
  defp with_mark(beat, false), do: %{beat | heartbeat_meta: Map.delete(beat.heartbeat_meta || %{}, "draining")}

  defp change(name, change) do
    case table(name) do
      nil ->
        {:error, :supervisor_not_running}

      table ->
        change.(table)
        {:ok, mark(name)}
    end
  rescue
    # The supervisor has just ended.
    ArgumentError -> {:error, :supervisor_not_running}
  end

  defp table(name), do: with(%{ets_table: table} <- Host.config(name), do: table, else: (_ -> nil))
end
