defmodule DurableServer.StoredState do
  @moduledoc """
  One durable server as the store knows it: its dumped `state`, the version `vsn` of the module that dumped it, and `meta`,
  the facts about who runs it (see `DurableServer.Meta`). `etag` names the stored object it was read from.

  The stored form is a map of three keys, `"vsn"`, `"state"` and `"meta"`; `"meta"` is Base64 of the external term format,
  because it holds atoms and pids. `from_object_store_term/1` accepts what `to_object_store_term/1` gives after any
  trip through JSON.
  """

  alias DurableServer.Meta

  defstruct [:key, :prefix, :state, :meta, :vsn, :etag]

  @type t :: %__MODULE__{state: map(), meta: Meta.t(), vsn: term(), etag: term()}

  @doc """
      iex> stored = %DurableServer.StoredState{state: %{"n" => 1}, meta: %DurableServer.Meta{status: :running}, vsn: 3}
      iex> term = DurableServer.StoredState.to_object_store_term(stored)
      iex> Map.keys(term)
      ["meta", "state", "vsn"]
      iex> DurableServer.StoredState.from_object_store_term(term)
      {:ok, stored}
      iex> DurableServer.StoredState.from_object_store_term(%{"node" => "a@host"})
      :not_stored_state
  """
  @spec to_object_store_term(t()) :: %{String.t() => term()}
  def to_object_store_term(%__MODULE__{meta: %Meta{} = meta} = stored) do
    %{
      "vsn" => stored.vsn,
      "state" => stored.state,
      "meta" => meta |> Meta.to_storage_term() |> :erlang.term_to_binary() |> Base.encode64()
    }
  end

  @spec from_object_store_term(term()) :: {:ok, t()} | {:error, Exception.t()} | :not_stored_state
  def from_object_store_term(%{"vsn" => vsn, "state" => state, "meta" => meta} = term)
      when map_size(term) == 3 and is_binary(meta) do
    # Not `:safe`: a node may read what a newer release wrote, with atoms it does not know yet.
    meta = meta |> Base.decode64!() |> :erlang.binary_to_term() |> Meta.from_storage_term()
    {:ok, %__MODULE__{vsn: vsn, state: state, meta: meta}}
  rescue
    error in ArgumentError -> {:error, error}
  end

  def from_object_store_term(_other), do: :not_stored_state
end
