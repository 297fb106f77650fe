defmodule DurableServer.Remote do
  @moduledoc """
  Starts a server on another node with one erpc. A node that cannot be reached gives `{:error, {:erpc,
  reason}}`; an exception on that node is raised here.

  After 5 s the other node returns `{:error, :timeout}`, but the process continues to boot.
  """

  alias DurableServer.{LifecycleManager, Server, Starter}

  @spec start(DurableServer.Config.t(), node(), Starter.child(), Starter.opts(), timeout() | nil) :: Server.result()
  def start(config, target, child, opts, timeout \\ nil) do
    :erpc.call(target, Starter, :start_here, [config.name, child, opts], timeout || timeout(config, target))
  rescue
    error in ErlangError ->
      case error.original do
        {:erpc, reason} -> {:error, {:erpc, reason}}
        _raised_there -> reraise(error, __STACKTRACE__)
      end
  catch
    :throw, {:error, :not_ready} -> {:error, :not_ready}
  end

  # The short limit only where both say the same region.
  defp timeout(config, target) do
    local = LifecycleManager.region(config, node())

    if local != nil and local == LifecycleManager.region(config, target),
      do: config.placement_erpc_timeout_same_region_ms,
      else: config.placement_erpc_timeout_cross_region_ms
  end
end
