defmodule DurableServer.Remote do
  @moduledoc """
  Starts on another node, by one erpc. What cannot be reached is `{:error, {:erpc, reason}}`; what was raised there is raised here.

  A start that timed out may still succeed over there.
  """

  alias DurableServer.{LifecycleManager, Server, Starter}

  @spec start(DurableServer.Config.t(), node(), Starter.child(), Starter.opts(), timeout() | nil) :: Server.result()
  def start(config, target, child, opts, timeout \\ nil) do
    :erpc.call(target, Starter, :start, [config.name, child, opts], timeout || timeout(config, target))
  rescue
    error in ErlangError ->
      case error.original do
        {:erpc, reason} -> {:error, {:erpc, reason}}
        _raised_there -> reraise(error, __STACKTRACE__)
      end
  end

  defp timeout(config, target) do
    if LifecycleManager.region(config, node()) == LifecycleManager.region(config, target),
      do: config.placement_erpc_timeout_same_region_ms,
      else: config.placement_erpc_timeout_cross_region_ms
  end
end
