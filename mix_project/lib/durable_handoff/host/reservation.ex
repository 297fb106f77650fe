defmodule DurableHandoff.Host.Reservation do
  @moduledoc false
  # What a failed move leaves in the store, and how that is undone.

  alias DurableHandoff.Host
  alias DurableHandoff.Host.Outcome

  @doc "Whether a stored `meta` reserves its server for this node: this node has displaced it."
  @spec ours?(map()) :: boolean()
  def ours?(meta), do: Map.get(meta, :restart_attempt_node) in [node(), own()]

  defp own, do: Atom.to_string(node())

  @doc """
  Undoes what a failed move has left in the store, so that other nodes may start the server. Returns `:ok`
  also if there is nothing to undo, or an object that cannot be read.

    * A reservation for this node is cleared.
    * A server that is stored as running, but whose process is dead on a node that can be asked, is stored as
      stopped: its `init` failed there, or its final write failed here. DurableServer's sweep would take the
      former for a server that is not permanent, and the latter for one that runs, until its heartbeats have
      expired. The server ran here until the move, so it is stored as permanent, its next `init` decides again
      whether it is, and as stopped by this node: receivers of leftovers leave alone what another node has stopped.

  Every write is conditional on what was read, so a server that another node has started since is left alone.
  """
  @spec release(Host.storage() | nil, term()) :: :ok | {:error, term()}
  def release(storage, key), do: release(storage, key, 3)

  # A conflict means that the object was written in between, so it is read again.
  defp release(storage, key, tries) do
    with {:ok, state} <- Host.stored(storage, key), {:ok, state} <- left_behind(state) do
      {backend, prefix} = storage
      object = %{key: key, prefix: prefix, body: state, etag: Map.get(state, :etag)}

      case Host.perform(DurableServer, :clear_restart_attempt, [backend, object]) do
        {:error, :conflict} when tries > 1 -> release(storage, key, tries - 1)
        result -> result
      end
    else
      nil -> :ok
      {:error, :not_found} -> :ok
      {:error, reason} -> if Outcome.blame_read(reason) == :server, do: :ok, else: {:error, reason}
    end
  end

  defp left_behind(%{meta: meta} = state) do
    cond do
      ours?(meta) ->
        {:ok, state}

      dead?(meta) ->
        {:ok, %{state | meta: Map.merge(meta, %{status: :stopped_graceful, permanent: true, node_str: own()})}}

      true ->
        nil
    end
  end

  defp dead?(%{status: :running, pid: pid}) when is_pid(pid), do: Host.alive?(pid) == false
  defp dead?(_meta), do: false
end
