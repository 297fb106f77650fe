defmodule DurableHandoff.Store.Request do
  @moduledoc false
  # One request to a store: sent by the caller, answered by message.
  #
  # Guarantees: exactly one answer, in the caller's own process; a late answer does not stay in its mailbox; a
  # caller that dies takes its request with it.

  alias DurableHandoff.Native.Library
  alias DurableHandoff.Store.Native

  # The native store answers when the time is up. This limit is for the case that its threads do not run.
  @grace_ms 2_000
  # Copying more than this takes longer than a normal scheduler should be held.
  @dirty_bytes 131_072

  # The longest timeout in ms, and the largest number of retries: an hour, as in the options of a store.
  @most 3_600_000

  @typedoc "What a `DurableHandoff.Store` has for its requests."
  @type store :: %{
          :ref => reference(),
          :url => String.t(),
          :timeout_ms => non_neg_integer(),
          :max_retries => non_neg_integer(),
          :page_size => pos_integer(),
          optional(atom()) => term()
        }
  @type answer :: :ok | {:ok, term()} | {:ok, term(), term()} | {:error, term()}

  @doc """
  Sends a request and waits for its answer. Options: `timeout:` in ms, `max_retries:`. Where one is absent,
  `:infinity` or of a kind that a later host may send, the store's own value counts.
  """
  @spec run(store(), tuple() | atom(), keyword()) :: answer()
  def run(store, request, opts) do
    with :ok <- check!(request), do: store |> start(request, opts) |> await()
  end

  @doc "Sends a request. `await/1` gets its answer."
  @spec start(store(), tuple() | atom(), keyword()) :: {reference(), term(), non_neg_integer()}
  def start(store, request, opts) do
    tag = make_ref()
    timeout = number(opts[:timeout], store.timeout_ms)
    retries = number(opts[:max_retries], store.max_retries)
    send = fn -> send_request(store.ref, tag, request, timeout, retries) end
    {tag, Library.without_arguments(send), timeout}
  end

  @doc "The answer of a request that `start/3` has sent. After its timeout: `{:error, :timeout}`, and no later answer."
  @spec await({reference(), term(), non_neg_integer()}) :: answer()
  def await({tag, handle, timeout}) do
    receive do
      {^tag, answer} -> answer
    after
      timeout + @grace_ms ->
        if Native.store_cancel(handle), do: {:error, :timeout}, else: sent(tag)
    end
  end

  # Invalid keys and etags are reported here, where the caller's names for them are known.
  defp check!(:check), do: :ok
  defp check!({:put, key, _body, condition, _readback, _keep}), do: check!(key, condition)
  defp check!({:delete, key, etag}) when etag != nil, do: check!(key, {:etag, etag})
  defp check!(request), do: check!(elem(request, 1), :always)

  defp check!(key, _condition) when not is_binary(key),
    do: raise(ArgumentError, "DurableHandoff.Store: a key or prefix got #{inspect(key)}, expected a string")

  defp check!(key, condition) do
    with {:etag, etag} <- condition, do: etag!(etag)
    if String.valid?(key), do: :ok, else: {:error, {:invalid_key, %{reason: "it is not UTF-8"}}}
  end

  defp etag!(etag) do
    unless is_binary(etag) and String.valid?(etag) do
      raise ArgumentError,
            "DurableHandoff.Store: :etag got #{inspect(etag)}, expected a string from an earlier answer"
    end
  end

  # The host passes `timeout: :infinity` where a deletion is to wait for its lock.
  defp number(value, _default) when is_integer(value), do: value |> max(0) |> min(@most)
  defp number(_absent, default), do: default

  # If the request was not cancelled, its answer was sent: it is in the mailbox, or arrives in a moment.
  defp sent(tag) do
    receive do
      {^tag, answer} -> answer
    after
      @grace_ms -> {:error, :timeout}
    end
  end

  defp send_request(ref, tag, {:put, _key, body, _condition, _readback, _keep} = request, timeout, retries)
       when byte_size(body) > @dirty_bytes,
       do: Native.store_request_dirty(ref, tag, request, timeout, retries)

  defp send_request(ref, tag, request, timeout, retries), do: Native.store_request(ref, tag, request, timeout, retries)
end
