defmodule DurableServer.Ownership do
  @moduledoc """
  Whether a stored server may be started by somebody new.

  Reserved: only in the name of the reservation's node. Running: only when its owner is gone, that is its node
  stopped its heartbeats or was started anew, or that node says that the process is dead.
  """

  alias DurableServer.{Config, Eligibility, LifecycleManager, Meta}

  @ask_timeout_ms 3_000

  @doc "`reservation` names the node in whose name the start is asked for, if any."
  @spec check(Config.t(), Meta.t() | nil, String.t() | nil) :: :ok | {:error, :reserved | :locked | atom()}
  def check(_config, nil, _reservation), do: :ok

  def check(config, meta, reservation) do
    now = System.system_time(:millisecond)

    cond do
      meta.status in [:cordoned, :deleting, :permanently_crashed] -> {:error, meta.status}
      Meta.reserved_for(meta, now) not in [nil, reservation] -> {:error, :reserved}
      meta.status == :running and owner_healthy?(config, meta, now) and not owner_gone?(meta, now) -> {:error, :locked}
      true -> :ok
    end
  end

  @doc "Whether the discovery sweep may take it: permanent, not reserved, and its owner stopped or lost."
  @spec abandoned?(Config.t(), Meta.t()) :: boolean()
  def abandoned?(config, meta) do
    now = System.system_time(:millisecond)

    meta.permanent and Meta.reserved_for(meta, now) == nil and
      case meta.status do
        :running -> not owner_healthy?(config, meta, now)
        status -> status in [:stopped_graceful, :crashed]
      end
  end

  defp owner_healthy?(config, meta, now) do
    case LifecycleManager.lookup_node_health(%{supervisor: config.name, node_str: meta.node_str}) do
      {:healthy, %{node_ref: node_ref}} -> node_ref == meta.node_ref
      :stale -> false
      # Nothing heard of that node yet: its own last word decides.
      :unknown -> now - meta.last_heartbeat_at <= Eligibility.max_age_ms()
    end
  end

  defp owner_gone?(%{pid: pid} = meta, now) do
    cond do
      node(pid) == node() -> not Process.alive?(pid)
      node(pid) in Node.list() -> not alive_there?(pid)
      # Reserved and running: a start over there that has not finished. Its last write is conditional, so should it live
      # on out of our sight, it will find that it lost.
      true -> Meta.reserved_for(meta, now) != nil
    end
  end

  defp alive_there?(pid) do
    :erpc.call(node(pid), Process, :alive?, [pid], @ask_timeout_ms)
  catch
    :error, {:erpc, _unreachable} -> true
  end
end
