defmodule DurableHandoff.Outside do
  @moduledoc false
  # Sending to processes on other nodes.
  #
  # Guarantee: never waits, neither for a connection nor for one that is full. A message that cannot go now does not go.

  @spec send(pid() | {atom(), node()}, term()) :: :ok | :nosuspend | :noconnect
  def send(to, message), do: :erlang.send(to, message, [:nosuspend, :noconnect])
end
