defmodule DurableHandoff.Client.Request do
  @moduledoc false
  # One request sent to one process, and what the end of that process proves about whether the request was
  # handled.
  #
  # What can be proven, and why:
  #
  #   * The monitor is set before the request is sent, over the same connection, and signals between two
  #     processes keep their order. So `:noproc` means that the process was gone before the request could
  #     arrive.
  #   * A server that stops handles nothing more from its mailbox, and a reply that it sent arrives before
  #     its DOWN. So what remains is whether the reason can be that of a callback, which may have been the
  #     one for this request.
  #   * Without a connection nothing is sent: that is checked first. A connection that breaks between this
  #     check and the end of the call counts as broken after sending. The monitor then ends with
  #     `:noconnection`, never with a reason of the server.
  #
  # How a DurableServer can end, in the versions from 0.1.1 up to what follows 0.1.5, and what that proves
  # about a request without a reply:
  #
  #   | reason | the server was ended by | handled? |
  #   |---|---|---|
  #   | `:normal` | a move (`stop_for_rehome`), the Terminator (`sync_and_stop`), `terminate_child`, a cordon | no |
  #   | `:normal` | its callback: `{:stop, :normal \| :delete \| :permanent, state}`, without a reply | yes: see below |
  #   | `:shutdown` | its supervisor, between two callbacks | no |
  #   | `{:shutdown, {:durable, {:init_failed, _}}}`, `{:shutdown, {:durable, :ignored}}` | its start: it never became a server | no |
  #   | `{:shutdown, {:durable, {:fatal_exit, _}}}` | itself, after a callback, a sync or an `{:EXIT, _, _}` has shown that it lost its object or its registration (conflict of a write, netsplit, a second registration), or that a strict `:sync` failed | perhaps |
  #   | `{:shutdown, :normal}`, `{:shutdown, :permanent}` | its callback | perhaps |
  #   | `{:shutdown, :delete}` | its callback, or a deletion | perhaps |
  #   | any other `{:shutdown, _}`: of a later version | unknown | perhaps |
  #   | `{:error, _}`, an exception, `{:bad_callback_return, _}` | its callback, also a `code_change` after an upgrade | perhaps |
  #   | `:killed` | the Terminator, after its time limit; code that was purged | perhaps |
  #
  # `:normal` is the one reason with two causes that nothing distinguishes: neither what DurableServer does
  # nor what it stores. A move ends with it, so it has to count as not handled; a callback that stops its
  # server with it has to reply (`DurableHandoff.Client`).
  #
  # Late replies go to an alias that is gone by then (GenServer.call has one for each call) and never reach
  # the caller's mailbox.

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

  @doc "Sends a message without waiting for a reply, so it is unknown whether it is handled."
  @spec cast(pid(), term()) :: {:ok, :ok} | :unreachable
  def cast(pid, message) do
    if Registry.reachable?(pid), do: {:ok, GenServer.cast(pid, message)}, else: :unreachable
  end

  defp outcome(:timeout), do: {:failed, :timeout}
  defp outcome(:calling_self), do: {:failed, :calling_self}
  defp outcome({:nodedown, _node}), do: {:lost, :noconnection}
  defp outcome(:noconnection), do: {:lost, :noconnection}
  defp outcome(reason), do: if(unhandled?(reason), do: {:unhandled, reason}, else: {:ended, reason})

  # Only the reasons of the table above prove that the request was not handled.
  defp unhandled?(reason) when reason in [:noproc, :normal, :shutdown], do: true
  defp unhandled?({:shutdown, {:durable, :ignored}}), do: true
  defp unhandled?({:shutdown, {:durable, {:init_failed, _reason}}}), do: true
  defp unhandled?(_reason), do: false
end
