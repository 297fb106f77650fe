defmodule DurableHandoff.Stopping.Signal do
  @moduledoc false
  # The handler of `DurableHandoff.Stopping` in `:erl_signal_server`. A handler that is added comes before
  # those that are there, OTP's own among them, which calls `:init.stop/0`. Its state: the process that gets
  # `:sigterm`, and a function to call before that.

  @behaviour :gen_event

  @impl true
  def init({listener, note}), do: {:ok, {listener, note}}

  @impl true
  def handle_event(:sigterm, {listener, note}) do
    note.()
    send(listener, :sigterm)
    {:ok, {listener, note}}
  end

  def handle_event(_other_signal, state), do: {:ok, state}

  @impl true
  def handle_call(_unknown, state), do: {:ok, {:error, :unknown}, state}
end
