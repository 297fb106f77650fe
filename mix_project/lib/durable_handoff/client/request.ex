defmodule DurableHandoff.Client.Request do
  @moduledoc false
  # One request sent to one process, and what its end says about whether it was handled.
  #
  # What can be known, and why:
  #
  #   * The monitor is set before the request is sent, over the same connection, and signals between two processes keep their order. So
  #     `:noproc` means that the process was gone before the request could arrive.
  #   * A server that has been told to stop handles nothing more from its mailbox, and a reply it sent arrives before its DOWN. So a DOWN
  #     with `:normal`, `:shutdown` or `{:shutdown, _}` and no reply means that it never took the request, if it replies inside its
  #     callback. A connection that breaks in between ends the monitor with another reason.
  #   * Without a connection nothing is sent: that is looked at first. One that breaks between that look and the end of the call counts
  #     as broken after sending, since nobody can tell.
  #   * Any other end says nothing: the server may have handled the request and failed afterwards.
  #
  # Late replies go to an alias that is gone by then (GenServer.call has one for each call) and never reach the caller's mailbox.

  alias DurableHandoff.Host.Registry

  @type outcome ::
          {:ok, reply :: term()}
          | :unreachable
          | {:unhandled, reason :: term()}
          | {:ended, reason :: term()}
          | {:lost, :noconnection}
          | {:failed, reason :: term()}

  @doc "Sends and waits for the reply."
  @spec call(pid(), term(), timeout()) :: outcome()
  def call(pid, request, timeout) do
    if node(pid) == node() or Registry.reachable?(pid),
      do: {:ok, GenServer.call(pid, request, timeout)},
      else: :unreachable
  catch
    :exit, {reason, {GenServer, :call, _arguments}} -> outcome(reason)
  end

  @doc "Sends without a reply: what becomes of it cannot be known."
  @spec cast(pid(), term()) :: {:ok, :ok} | :unreachable
  def cast(pid, message) do
    if Registry.reachable?(pid), do: {:ok, GenServer.cast(pid, message)}, else: :unreachable
  end

  defp outcome(:timeout), do: {:failed, :timeout}
  defp outcome(:calling_self), do: {:failed, :calling_self}
  defp outcome({:nodedown, _node}), do: {:lost, :noconnection}
  defp outcome(:noconnection), do: {:lost, :noconnection}
  defp outcome(reason) when reason in [:noproc, :normal, :shutdown], do: {:unhandled, reason}
  defp outcome({:shutdown, _detail} = reason), do: {:unhandled, reason}
  defp outcome(reason), do: {:ended, reason}
end
