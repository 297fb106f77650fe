defmodule DurableServer.Object do
  @moduledoc """
  The stored object of one server: reads, and the conditional writes by which ownership passes from one
  process to the next.

  Every write of a server is conditional: on the etag of what was read, or on there being nothing yet.
  """

  alias DurableServer.{Meta, StorageBackend, StoredState}

  @retries 5

  @type backend :: StorageBackend.t()

  @spec read(backend(), String.t(), keyword()) :: {:ok, StoredState.t()} | {:error, term()}
  def read(backend, storage_key, opts \\ [consistent: true]) do
    case StorageBackend.get_object(backend, storage_key, opts) do
      {:ok, %{body: %StoredState{} = stored, etag: etag}} -> {:ok, %{stored | etag: etag}}
      {:ok, %{body: other}} -> {:error, {:unexpected_value_type, other}}
      {:error, reason} -> {:error, reason}
    end
  end

  @doc "Claims the object: creates it if there is none, else writes it on condition of the etag that was read."
  @spec claim(backend(), String.t(), StoredState.t()) :: {:ok, StoredState.t()} | {:error, :conflict | term()}
  def claim(backend, storage_key, %StoredState{etag: nil} = stored) do
    case StorageBackend.try_claim(backend, storage_key, stored) do
      {:ok, {:claimed, etag}} -> {:ok, %{stored | etag: etag}}
      {:error, :already_claimed} -> {:error, :conflict}
      {:error, reason} -> {:error, reason}
    end
  end

  def claim(backend, storage_key, %StoredState{} = stored), do: put(backend, storage_key, stored, [])

  @doc "Writes on condition of the last write's etag. The backend tries again after transient failures."
  @spec write(backend(), String.t(), StoredState.t()) :: {:ok, StoredState.t()} | {:error, :conflict | term()}
  def write(backend, storage_key, stored), do: put(backend, storage_key, stored, max_retries: @retries)

  @doc "Writes only the metadata, if `owner` still has the object. The stored state stays unchanged."
  @spec write_meta(backend(), String.t(), Meta.t(), keyword()) :: :ok | {:error, term()}
  def write_meta(backend, storage_key, %Meta{} = meta, opts \\ []) do
    with {:ok, stored} <- read(backend, storage_key),
         true <- owner?(stored.meta, meta) || {:error, :ownership_mismatch},
         {:ok, _written} <- write(backend, storage_key, Map.merge(%{stored | meta: meta}, Map.new(opts))),
         do: :ok
  end

  @doc "A dumped state as a reader of the store gets it: keys and atoms become strings."
  @spec through_store(backend(), map()) :: {:ok, map()} | {:error, term()}
  def through_store(backend, dumped) do
    with {:ok, encoded} <- StorageBackend.encode(backend, dumped), do: StorageBackend.decode(backend, encoded)
  end

  defp put(backend, storage_key, %StoredState{etag: etag} = stored, opts) do
    with {:ok, %{etag: etag}} <- StorageBackend.put_object(backend, storage_key, stored, [etag: etag] ++ opts),
         do: {:ok, %{stored | etag: etag}}
  end

  defp owner?(stored, meta), do: {stored.pid, stored.node_ref} == {meta.pid, meta.node_ref}
end
