defmodule DurableHandoff.Host.StoredState do
  @moduledoc """
  Between the host's stored state and the map of three keys that plain nodes read and write.

  Guarantees: everything that is no stored state goes through unchanged, in both directions; an envelope that cannot be
  opened is an error, never an exception.
  """

  @doc "Whether a term is the host's stored state. Such bytes name their owner, so two writers never write the same."
  @spec stored_state?(term()) :: boolean()
  def stored_state?(%{__struct__: DurableServer.StoredState}), do: true
  def stored_state?(_other), do: false

  @doc "The name of the node that a stored state is reserved for, and nobody else may start, or nil."
  @spec reserved_for(term()) :: String.t() | nil
  def reserved_for(%{__struct__: DurableServer.StoredState, meta: %{status: :stopped_graceful} = meta}),
    do: Map.get(meta, :restart_attempt_node)

  def reserved_for(_other), do: nil

  @doc "What is written: the three-key map of a stored state, anything else as it is."
  @spec to_object(term()) :: term()
  def to_object(%{__struct__: DurableServer.StoredState} = stored),
    do: host(:to_object_store_term, [stored])

  def to_object(other), do: other

  @doc "What was read: a stored state for a three-key map, anything else as it is."
  @spec from_object(term()) :: {:ok, term()} | {:error, {:unreadable, Exception.t()}}
  def from_object(%{"vsn" => _, "state" => _, "meta" => meta} = object) when is_binary(meta) do
    {:ok, host(:from_object_store_term, [object])}
  rescue
    error -> {:error, {:unreadable, error}}
  end

  def from_object(other), do: {:ok, other}

  # The host is no dependency of this library, so the compiler is not asked whether these functions exist.
  defp host(function, arguments), do: apply(DurableServer.StoredState, function, arguments)
end
