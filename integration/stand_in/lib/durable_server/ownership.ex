defmodule DurableServer.Ownership do
  @moduledoc """
  Whether a stored server may be started by another owner.

  If it is reserved, only on behalf of the reservation's node. Otherwise only if its owner is gone: it stopped
  gracefully, its node says that the process is dead, its node has restarted, or its heartbeat has expired,
  also according to the store.
  """

  alias DurableServer.{Config, Eligibility, Heartbeats, LifecycleManager, Meta}

  @ask_timeout_ms 3_000
  # A deletion that takes longer than this will never end.
  @tombstone_ms 60_000

  @doc "`reservation` names the node in whose name the start is asked for, if any."
  @spec check(Config.t(), Meta.t(), String.t() | nil) ::
          :ok
          | {:error, :cordoned | {:restart_claimed, String.t()} | {:already_started, pid() | :deleting}}
  def check(config, meta, reservation) do
    claimed_by = Meta.reserved_for(meta, System.system_time(:millisecond))

    cond do
      meta.status == :cordoned -> {:error, :cordoned}
      claimed_by not in [nil, reservation] -> {:error, {:restart_claimed, claimed_by}}
      meta.status == :deleting -> if tombstone?(meta), do: {:error, {:already_started, :deleting}}, else: :ok
      meta.status == :stopped_graceful -> :ok
      owned?(config, meta) -> {:error, {:already_started, meta.pid}}
      true -> :ok
    end
  end

  @doc "Whether the discovery sweep may take it: permanent, not reserved, and its owner stopped or lost."
  @spec abandoned?(Config.t(), Meta.t()) :: boolean()
  def abandoned?(config, meta) do
    meta.permanent and Meta.reserved_for(meta, System.system_time(:millisecond)) == nil and
      case meta.status do
        :running -> not healthy?(config, meta)
        status -> status in [:stopped_graceful, :crashed]
      end
  end

  defp tombstone?(meta), do: System.system_time(:millisecond) - meta.last_heartbeat_at <= @tombstone_ms

  defp owned?(config, %{pid: pid} = meta) do
    cond do
      node(pid) == node() -> lives_here?(config.name, pid, meta.node_ref)
      node(pid) in Node.list() -> lives_there?(config, pid, meta)
      true -> healthy?(config, meta)
    end
  end

  @doc false
  @spec lives_here?(atom(), pid(), integer()) :: boolean()
  def lives_here?(supervisor, pid, node_ref),
    do: Process.alive?(pid) and DurableServer.Supervisor.node_ref(supervisor) == node_ref

  defp lives_there?(config, pid, meta) do
    :erpc.call(node(pid), __MODULE__, :lives_here?, [config.name, pid, meta.node_ref], @ask_timeout_ms)
  catch
    :error, {:erpc, _unreachable} -> healthy?(config, meta)
  end

  # If a node looks stale here, its heartbeat is read from the store before its lock is taken.
  defp healthy?(config, meta) do
    case LifecycleManager.lookup_node_health(%{supervisor: config.name, node_str: meta.node_str}) do
      {:healthy, %{node_ref: node_ref}} -> node_ref <= meta.node_ref
      _stale_or_unknown -> healthy_in_store?(config, meta)
    end
  end

  defp healthy_in_store?(config, meta) do
    case Heartbeats.read(config, meta.node_str) do
      {:ok, heartbeat} -> Eligibility.fresh?(heartbeat, config) and heartbeat.node_ref <= meta.node_ref
      {:error, :not_found} -> false
      {:error, _reason} -> true
    end
  end
end
