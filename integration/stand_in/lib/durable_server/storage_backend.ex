defmodule DurableServer.StorageBackend do
  @moduledoc """
  Where stored states and heartbeats live.

  A supervisor names its backend as `backend: {module, opts}`. Every write that must not overwrite another owner's is
  conditional on the etag last seen, so a backend must compare and swap atomically. Reads with `consistent: true` see every
  write that was acknowledged before.

  `data` is a `DurableServer.StoredState` or a plain map with string keys (a heartbeat); reads give the same back.
  """

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
end
