defmodule DurableServer.StorageBackend do
  @moduledoc """
  The storage of states and heartbeats.

  A supervisor names its backend as `backend: {module, opts}`. Every write that must not overwrite another owner's is
  conditional on the etag last seen, so a backend must compare and swap atomically. Reads with `consistent: true` see every
  write that was acknowledged before.

  `data` is a `DurableServer.StoredState` or a plain map with string keys (a heartbeat); reads give the same back.
  """

  defstruct [:adapter, :state, defaults: %{}, features: %{}]

  @typedoc "A backend that is ready to be used."
  @type t :: %__MODULE__{adapter: module(), state: state(), defaults: map(), features: map()}
  @type state :: term()
  @type key :: String.t()
  @type data :: DurableServer.StoredState.t() | map()
  @type etag :: term()
  @type object :: %{body: data(), etag: etag()}

  @callback init_backend(opts :: keyword()) ::
              {:ok, %{state: state(), defaults: map(), features: map()}} | {:error, term()}
  @callback ensure_ready(state()) :: :ok | {:error, term()}
  @callback get_object(state(), key(), opts :: keyword()) :: {:ok, object()} | {:error, :not_found | term()}
  @callback put_object(state(), key(), data(), opts :: keyword()) :: {:ok, object()} | {:error, :conflict | term()}
  @callback try_claim(state(), key(), data()) :: {:ok, {:claimed, etag()}} | {:error, :already_claimed | term()}
  @callback update_object(state(), key(), (object() -> {:ok, data()} | {:error, term()}), opts :: keyword()) ::
              {:ok, object()} | {:error, term()}
  @callback delete_object(state(), key(), opts :: keyword()) :: :ok | {:error, :not_found | :conflict | term()}
  @callback list_all_objects_stream(state(), prefix :: String.t(), opts :: keyword()) :: Enumerable.t()
  @callback encode(state(), data()) :: {:ok, term()} | {:error, term()}
  @callback decode(state(), term()) :: {:ok, data()} | {:error, term()}
  @callback subscribe(state(), prefix :: String.t(), pid(), opts :: keyword()) :: {:ok, term()} | {:error, term()}
  @callback unsubscribe(state(), term()) :: :ok

  @optional_callbacks subscribe: 4, unsubscribe: 2

  @spec ensure_ready(t()) :: :ok | {:error, term()}
  def ensure_ready(backend), do: backend.adapter.ensure_ready(backend.state)

  @spec get_object(t(), key(), keyword()) :: {:ok, object()} | {:error, :not_found | term()}
  def get_object(backend, key, opts), do: backend.adapter.get_object(backend.state, key, opts)

  @spec put_object(t(), key(), data(), keyword()) :: {:ok, object()} | {:error, :conflict | term()}
  def put_object(backend, key, data, opts), do: backend.adapter.put_object(backend.state, key, data, opts)

  @spec try_claim(t(), key(), data()) :: {:ok, {:claimed, etag()}} | {:error, :already_claimed | term()}
  def try_claim(backend, key, data), do: backend.adapter.try_claim(backend.state, key, data)

  @spec update_object(t(), key(), (object() -> {:ok, data()} | {:error, term()}), keyword()) ::
          {:ok, object()} | {:error, term()}
  def update_object(backend, key, fun, opts), do: backend.adapter.update_object(backend.state, key, fun, opts)

  @spec delete_object(t(), key(), keyword()) :: :ok | {:error, :not_found | :conflict | term()}
  def delete_object(backend, key, opts), do: backend.adapter.delete_object(backend.state, key, opts)

  @spec list_all_objects_stream(t(), String.t(), keyword()) :: Enumerable.t()
  def list_all_objects_stream(backend, prefix, opts),
    do: backend.adapter.list_all_objects_stream(backend.state, prefix, opts)

  @spec encode(t(), data()) :: {:ok, term()} | {:error, term()}
  def encode(backend, data), do: backend.adapter.encode(backend.state, data)

  @spec decode(t(), term()) :: {:ok, data()} | {:error, term()}
  def decode(backend, data), do: backend.adapter.decode(backend.state, data)
end
