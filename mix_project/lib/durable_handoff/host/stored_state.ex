defmodule DurableHandoff.Host.StoredState do
  @moduledoc false
  # Converts between DurableServer's stored state and the map of three keys that nodes without this backend
  # read and write.
  #
  # Guarantees: a term that is not a stored state stays unchanged in both directions. An envelope that cannot
  # be decoded is an error, never an exception.

  @doc """
  Whether a term is DurableServer's stored state. Such bytes name their owner, so two writers never write the
  same.
  """
  @spec stored_state?(term()) :: boolean()
  def stored_state?(%{__struct__: DurableServer.StoredState}), do: true
  def stored_state?(_other), do: false

  @doc "The name of the node that a stored state is reserved for, so that no other may start it, or nil."
  @spec reserved_for(term()) :: String.t() | nil
  def reserved_for(%{__struct__: DurableServer.StoredState, meta: %{status: :stopped_graceful} = meta}),
    do: Map.get(meta, :restart_attempt_node)

  def reserved_for(_other), do: nil

  @doc "The term to write: the three-key map of a stored state, any other term as it is."
  @spec to_object(term()) :: term()
  def to_object(%{__struct__: DurableServer.StoredState} = stored),
    do: apply(DurableServer.StoredState, :to_object_store_term, [stored])

  def to_object(other), do: other

  @doc """
  The term that was read: a stored state where DurableServer accepts it as one, any other term as it is.

  `{:error, exception}` when DurableServer cannot read it: a broken envelope, one of a later version, or an
  answer that this library does not know.
  """
  @spec from_object(term(), host :: module()) :: {:ok, term()} | {:error, Exception.t()}
  def from_object(object, host \\ DurableServer.StoredState)

  def from_object(object, host) when is_map(object) and not is_struct(object) do
    case apply(host, :from_object_store_term, [object]) do
      {:ok, %{__struct__: DurableServer.StoredState} = stored} -> {:ok, stored}
      :not_stored_state -> {:ok, object}
      {:error, error} when is_exception(error) -> {:error, error}
      other -> {:error, RuntimeError.exception("unexpected answer of DurableServer: #{inspect(other, limit: 5)}")}
    end
  rescue
    error -> {:error, error}
  end

  def from_object(other, _host), do: {:ok, other}
end
