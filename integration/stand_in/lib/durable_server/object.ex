defmodule DurableServer.Object do
  @moduledoc """
  The stored object of one server: reads, and the conditional writes by which ownership passes from one process to the next.

  `backend` is `{module, state}` as in the supervisor's configuration. Every write here is conditional: on the etag of
  what was read, or on there being nothing yet.
  """

  alias DurableServer.StoredState

  @retries 3

  @type backend :: {module(), term()}

  @spec read(backend(), String.t()) :: {:ok, StoredState.t()} | {:error, term()}
  def read({module, state}, storage_key) do
    with {:ok, %{body: %StoredState{} = stored, etag: etag}} <- module.get_object(state, storage_key, consistent: true),
         do: {:ok, %{stored | etag: etag}}
  end

  @spec write(backend(), String.t(), StoredState.t()) :: {:ok, StoredState.t()} | {:error, :conflict | term()}
  def write({module, state}, storage_key, %StoredState{etag: nil} = stored) do
    case module.try_claim(state, storage_key, stored) do
      {:ok, {:claimed, etag}} -> {:ok, %{stored | etag: etag}}
      {:error, :already_claimed} -> {:error, :conflict}
      {:error, reason} -> {:error, reason}
    end
  end

  def write({module, state}, storage_key, %StoredState{etag: etag} = stored) do
    with {:ok, %{etag: etag}} <- module.put_object(state, storage_key, stored, etag: etag, max_retries: @retries),
         do: {:ok, %{stored | etag: etag}}
  end

  @spec delete(backend(), String.t(), StoredState.t()) :: :ok | {:error, term()}
  def delete({module, state}, storage_key, %StoredState{etag: etag}),
    do: module.delete_object(state, storage_key, etag: etag)

  @doc "What a reader of the store would get for `state`: keys become strings, atoms words, whatever the format does."
  @spec through_store(backend(), StoredState.t()) :: {:ok, StoredState.t()} | {:error, term()}
  def through_store({module, state}, %StoredState{etag: etag} = stored) do
    with {:ok, encoded} <- module.encode(state, stored),
         {:ok, %StoredState{} = decoded} <- module.decode(state, encoded),
         do: {:ok, %{decoded | etag: etag}}
  end
end
