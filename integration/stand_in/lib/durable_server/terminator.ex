defmodule DurableServer.Terminator do
  @moduledoc """
  Stops every local server gracefully when the supervisor goes down. It is started last, so it is stopped
  first, while everything else still runs.
  """

  use GenServer, shutdown: :infinity

  require Logger

  alias DurableServer.{Config, LifecycleManager}

  @spec start_link(Config.t()) :: GenServer.on_start()
  def start_link(config), do: GenServer.start_link(__MODULE__, config)

  @impl true
  def init(config) do
    Process.flag(:trap_exit, true)
    {:ok, config}
  end

  @impl true
  def terminate(_reason, config) do
    stop_discovery(config)
    deadline = System.monotonic_time(:millisecond) + config.graceful_shutdown_total_timeout_ms

    config.dynamic_supervisor
    |> DynamicSupervisor.which_children()
    |> Task.async_stream(fn {_id, pid, _type, _modules} -> stop(pid, config, deadline) end,
      max_concurrency: config.graceful_shutdown_concurrency,
      ordered: false,
      timeout: :infinity
    )
    |> Stream.run()
  end

  defp stop_discovery(config) do
    LifecycleManager.stop_discovery(config.name)
  catch
    :exit, reason -> Logger.warning("draining not announced: #{inspect(reason)}")
  end

  defp stop(pid, config, deadline) do
    ref = Process.monitor(pid)
    send(pid, {:durable, {:sync_and_stop, :shutdown}})
    left = max(deadline - System.monotonic_time(:millisecond), 0)

    receive do
      {:DOWN, ^ref, :process, _pid, _reason} -> :ok
    after
      min(config.graceful_shutdown_timeout_ms, left) -> :timeout
    end
  end
end
