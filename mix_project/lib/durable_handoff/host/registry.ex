defmodule DurableHandoff.Host.Registry do
  @moduledoc """
  Who owns a key, and word of every change: the host's registry, as callers use it.

  Guarantees: nothing here raises or exits because the host is absent, busy or of a later version; an owner it names was, a moment ago,
  a process that could be reached from this node; everything is this node's own replica and waits for no other node, except `start/4`.

  Callers take the module as an argument, so that tests can force the order in which a registry learns of a move.
  """

  alias DurableHandoff.Host

  @type key :: term()
  @type start :: {module(), initial_state :: map()}

  @doc "The process that owns `key` as this node knows it; nil also for one that cannot be reached from here now."
  @spec owner(Host.name(), key()) :: pid() | nil
  def owner(name, key) do
    case Host.lookup(name, key) do
      {:here, pid} -> pid
      {:elsewhere, pid} -> if reachable?(pid), do: pid
      nil -> nil
    end
  end

  @doc "Whether a message to `pid` would find a connection, or a live process where it is one of this node."
  @spec reachable?(pid()) :: boolean()
  def reachable?(pid) when node(pid) == node(), do: Process.alive?(pid)
  def reachable?(pid), do: node(pid) in Node.list(:connected)

  @doc "From now on the calling process is sent a message for every change of `key`, or of `:all`; `changes/1` reads it."
  @spec subscribe(Host.name(), key() | :all) :: :ok | {:error, term()}
  def subscribe(name, key), do: Host.perform(Group, :monitor, [name, key])

  @doc "Undoes `subscribe/2`. Messages that were on their way still arrive."
  @spec unsubscribe(Host.name(), key() | :all) :: :ok
  def unsubscribe(name, key) do
    Host.perform(Group, :demonitor, [name, key])
    :ok
  end

  @doc "The keys a message is about, each with the process that was registered; `:unknown` for any other message."
  @spec changes(message :: term()) :: [{key(), pid()}] | :unknown
  def changes({:group, events, _info}) when is_list(events) do
    for %{type: :registered, key: key, pid: pid} <- events, is_pid(pid), do: {key, pid}
  end

  def changes(_other), do: :unknown

  @doc "A process that lives as long as the registry and its subscriptions; nil when the host is not up on this node."
  @spec up(Host.name()) :: pid() | nil
  def up(name), do: Host.whereis(name)

  @doc """
  Starts the server by the host's own claim rules, on whichever node they choose. `:again`: it is being moved, stopped or started
  by somebody else, or could not be asked for; nothing is wrong with the server itself.
  """
  @spec start(Host.name(), key(), start(), timeout_ms :: pos_integer()) ::
          {:ok, pid()} | {:again, term()} | {:error, term()}
  def start(name, key, {module, initial_state}, timeout_ms) do
    child = {module, key: key, initial_state: initial_state}

    case apply(DurableServer.Supervisor, :ensure_started_child, [name, child, [timeout: timeout_ms]]) do
      {:ok, {pid, _meta}} when is_pid(pid) -> {:ok, pid}
      {:error, {:already_started, {pid, _meta}}} when is_pid(pid) -> {:ok, pid}
      {:error, reason} -> if passing?(reason), do: {:again, reason}, else: {:error, reason}
      other -> {:error, other}
    end
  catch
    # A supervisor that is starting or stopping on this node.
    :exit, reason -> {:again, reason}
    kind, reason -> {:error, {kind, reason}}
  end

  # Somebody else is at work on the same key, or the place could not be asked: over in a moment. All other refusals are about the
  # server or the cluster, and whoever asked for the start should hear of them.
  defp passing?(reason) when reason in [:timeout, :reserved, :locked, :conflict, :not_ready, :shutting_down], do: true
  defp passing?({:erpc, _reason}), do: true
  defp passing?({:already_started, _unknown}), do: true
  defp passing?(_reason), do: false
end
