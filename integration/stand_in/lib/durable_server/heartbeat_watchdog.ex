defmodule DurableServer.HeartbeatWatchdog do
  @moduledoc """
  Logs an error, once, when this node has not stored a heartbeat for so long that other nodes consider it dead.

  It only logs: fencing is left to the conditional writes.
  """

  use GenServer

  require Logger

  alias DurableServer.{Config, Eligibility}

  @spec start_link(Config.t()) :: GenServer.on_start()
  def start_link(config), do: GenServer.start_link(__MODULE__, nil, name: config.heartbeat_watchdog)

  @doc "A heartbeat was stored."
  @spec beaten(Config.t()) :: :ok
  def beaten(config), do: GenServer.cast(config.heartbeat_watchdog, :beaten)

  @impl true
  def init(nil), do: {:ok, nil, Eligibility.max_age_ms()}

  @impl true
  def handle_cast(:beaten, nil), do: {:noreply, nil, Eligibility.max_age_ms()}

  @impl true
  def handle_info(:timeout, nil) do
    Logger.error("no heartbeat stored for #{Eligibility.max_age_ms()} ms: other nodes take this one for dead")
    {:noreply, nil}
  end
end
