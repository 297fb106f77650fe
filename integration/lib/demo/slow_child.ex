defmodule HandoffDemo.SlowChild do
  @moduledoc """
  A child that stops before the durable servers and takes long, like an endpoint that waits for its
  connections.
  """

  use GenServer, shutdown: :infinity

  @doc "The argument is how long it takes to stop, in milliseconds."
  @spec start_link(pos_integer()) :: GenServer.on_start()
  def start_link(stop_ms), do: GenServer.start_link(__MODULE__, stop_ms)

  @impl true
  def init(stop_ms) do
    Process.flag(:trap_exit, true)
    {:ok, stop_ms}
  end

  @impl true
  def terminate(_reason, stop_ms), do: Process.sleep(stop_ms)
end
