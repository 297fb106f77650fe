defmodule DurableHandoff.Stopping.Signal do
  @moduledoc false
  # The handler of `DurableHandoff.Stopping` in `:erl_signal_server`. A new handler runs before the existing
  # ones, among them OTP's own, which calls `:init.stop/0`.

  @behaviour :gen_event

  alias DurableHandoff.Stopping.Moment

  @impl true
  def init(listener), do: {:ok, listener}

  @impl true
  def handle_event(:sigterm, listener) do
    Moment.note()
    send(listener, :sigterm)
    {:ok, listener}
  end

  def handle_event(_other_signal, listener), do: {:ok, listener}

  @impl true
  def handle_call(_unknown, listener), do: {:ok, {:error, :unknown}, listener}
end
