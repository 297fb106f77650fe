defmodule DurableHandoff.Stopping.Signal do
  @moduledoc false
  # The handler of `DurableHandoff.Stopping` in `:erl_signal_server`. A handler that is added comes before
  # those that are there, OTP's own among them, which calls `:init.stop/0`.

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
