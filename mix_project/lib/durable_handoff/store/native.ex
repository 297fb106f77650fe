defmodule DurableHandoff.Store.Native do
  @moduledoc false
  # Object stores: one stub for every function of native/store_nif. The library is loaded when a store is first
  # opened, so that a VM that uses none does not load it. `config :durable_handoff, store: false` leaves it out
  # of the build.
  #
  # Every request is answered by a message {tag, answer} to the caller: `:ok`, `{:ok, body, etag}` of a get,
  # `{:ok, etag}` of a put, `{:ok, [{key, etag}], next}` of a list, `{:error, kind}` or `{:error, {kind, facts}}`.

  use DurableHandoff.Native.Library, "store_nif"

  @on_load :on_load

  @doc false
  def on_load, do: accept_code()

  @doc "Loads the library unless it is loaded: `:ok`, or the exception that says why not and what to do."
  @spec load() :: :ok | {:error, Exception.t()}
  def load do
    cond do
      check() == :ok ->
        :ok

      Application.get_env(:durable_handoff, :store, true) ->
        load_library()
        check()

      true ->
        {:error, DurableHandoff.NativeError.exception(path: path(), reason: :left_out)}
    end
  end

  @type store :: reference()
  @type request ::
          :check
          | {:get, key :: String.t(), consistent :: boolean()}
          | {:put, key :: String.t(), body :: binary(), :always | :absent | {:etag, String.t()},
             readback :: :always | :after_lost_answer, keep :: boolean()}
          | {:delete, key :: String.t(), etag :: String.t() | nil}
          | {:list, prefix :: String.t(), after_key :: String.t() | nil, max :: pos_integer()}

  @spec store_open(url :: String.t(), [{String.t(), String.t()}], bounds :: map()) ::
          {:ok, store()} | {:error, atom() | {atom(), map()}}
  def store_open(_url, _options, _bounds), do: missing()

  @spec store_request(store(), tag :: reference(), request(), timeout_ms :: integer(), retries :: integer()) ::
          handle :: reference()
  def store_request(_store, _tag, _request, _timeout_ms, _retries), do: missing()

  # The same on a dirty scheduler, for large bodies.
  @spec store_request_dirty(store(), tag :: reference(), request(), timeout_ms :: integer(), retries :: integer()) ::
          handle :: reference()
  def store_request_dirty(_store, _tag, _request, _timeout_ms, _retries), do: missing()

  # true: cancelled, no answer will come. false: the answer has been sent.
  @spec store_cancel(handle :: reference()) :: boolean()
  def store_cancel(_handle), do: missing()

  @spec store_stats(store()) :: %{atom() => non_neg_integer()}
  def store_stats(_store), do: missing()
end
