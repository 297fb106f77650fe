defmodule DurableHandoff.Store do
  @moduledoc """
  A storage backend for DurableServer on any object storage.

      {DurableServer.Supervisor,
       name: MyApp.Durable, prefix: "myapp/", backend: {DurableHandoff.Store, url: "s3://my-bucket"}}

  Guarantees:

    * A conditional write is applied if and only if its condition holds: by etag on S3 and Azure, by generation on
      Google Cloud Storage, by file lock and content hash in a directory (several VMs on one machine, crash-safe).
    * A conditional write whose response was lost is not taken for a lost race: after a refusal the object is read
      back, and if it has exactly these bytes and this owner, the write succeeded.
    * A request ends within its `timeout:` and blocks no scheduler. It is cancelled when its caller dies.
    * Requests in flight and waiting requests are bounded. One more returns `{:error, :overloaded}` at once. Requests
      for heartbeats do not wait for others.
    * Credentials are never inspected, logged, or part of an error.
    * On S3 the objects are those of DurableServer's own object storage backend, under the same keys if the URL has no
      path: a cluster can change from one to the other, with its data. The guide "Stores" says how.

  ## Options

  #{DurableHandoff.Store.Options.docs()}

  ## URLs and credentials

    * `s3://BUCKET/PATH`: S3, and stores with its protocol. `config`: `region`, `endpoint`, `access_key_id`,
      `secret_access_key`, `session_token`, `virtual_hosted_style_request`.
    * `gs://BUCKET/PATH`: Google Cloud Storage. `config`: `service_account` (a path), `service_account_key` (JSON),
      `bearer_token`, `base_url`.
    * `az://CONTAINER/PATH`: Azure Blob Storage. `config`: `account_name`, `account_key`, `sas_token`, `client_id`,
      `client_secret`, `tenant_id`, `endpoint`.
    * `file:///DIR`: a directory of this machine.
    * `memory:NAME`: memory of this VM, for tests and trials.

  One conformance suite runs on all of them: S3 on moto, ministack and Ceph, Azure on Azurite, Google Cloud
  Storage on a server written after Google's reference. The guide "Stores" lists what each provider needs and
  what was verified where.

  PATH is the prefix of every key. `config` takes every option of the Rust crate `object_store` by name. Options that
  are absent come from the usual environment variables (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT_URL`,
  `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME`, ...), and on a cloud machine from its metadata
  service. An `http://` endpoint is used without TLS.

  With a custom endpoint, reads with `consistent: true` and conditional writes send `X-Tigris-Consistent: true`:
  Tigris then asks the leader, other servers ignore it.

  ## The proof at start

  Only conditional writes guarantee one owner for each key. Many servers accept their headers and ignore them, or
  check the condition first and write later; some proxies remove the headers. Therefore `ensure_ready/1`, which
  DurableServer calls when its supervisor starts, lists one key and then races writes on the store itself: four
  claims of a fresh key, four updates of one version, an update and a deletion of an old version, and reads in
  between. Exactly one of each four may win. The key is below `durable_handoff_proof/` and is deleted again. The
  proof takes at most 20 requests (24 where the store does not take etags as it gave them), once an hour for each
  store and VM. On a store that allows one write a second for each object it takes some seconds.

  A store that fails the proof is refused: the supervisor does not start. `problem` in the facts of the reason says
  what that means and what to do.

  | reason | what was seen |
  |---|---|
  | `{:conditions_ignored, facts}` | a write whose condition does not hold was applied |
  | `{:conditions_not_atomic, facts}` | of four writes at the same time more than one was applied |
  | `{:conditions_refused, facts}` | conditional writes are answered with an error (501) |
  | `{:etags_not_usable, facts}` | a write with the etag that the store has just returned is refused, with quotes and without |
  | `{:weak_etags, facts}` | the same, where etags are weak (`W/"..."`): a proxy compresses |
  | `{:stale_reads, facts}` | a read gave something else than what had just been written |
  | `{:deletions_ignore_conditions, facts}` | a deletion of an old version deleted the new one |
  | `{:credentials_read_only, facts}` | the credentials may list, but not write or delete |

  The same proof finds out whether a store takes etags with or without quotes (Ceph before version 20 and
  DigitalOcean Spaces: only without). Both work.

  `conditional_writes: :assume` skips the race, for credentials that cannot write at start. The guarantees then
  depend on the store alone.

  ## Deleting one version

  On AWS, Azure and Google a deletion carries its condition. Other S3 servers often ignore it, or let a write
  of the same version succeed as well, so that an acknowledged write is gone. There the version is first
  overwritten with a tombstone, under its etag, and the tombstone is deleted: it rests on conditional writes
  again. A tombstone reads as an object that is not there. One whose writer died, or got no answer in time,
  blocks claims of its key for a minute (`:contended`) and is then written over. Therefore the clocks of two
  nodes must not differ by more than half a minute.

  ## Reading what was just written

  A move reads the object straight back after the source's final write. That write reserves the server for
  this node, so until the reservation is used no other node writes the object, and the store answers the one
  read that follows with what it just wrote, within `read_your_writes_ms`: three round trips a move instead of
  four. If another node has written nevertheless, the next write under that etag is refused. Every other read
  asks the store.

  ## Errors

  Besides those of the start, see above. Unless an entry says otherwise, the request is not sent again. "Sent
  again" means up to `max_retries:` times, after pauses that grow.

    * `:not_found`: there is no object. Only an answer with the store's own code for it counts. In a directory that is
      gone, such as a volume that is not mounted, every request is `{:io, facts}`.
    * `:conflict`: the condition does not hold. The object was read back first.
    * `:already_claimed`, of `try_claim/3`: there is an object. It was read back first.
    * `:timeout`: no answer in time. A write may have been applied. Sent again.
    * `:overloaded`: `max_waiting` requests wait already.
    * `:contended`: another request for this object is in progress (409), or it is written too often (429 of R2
      and Google). Sent again; after a 429 up to ten times, each after a second, for this key only.
    * `:slow_down`: the store asks for fewer requests (503 or 429 with its code, `Retry-After`). Sent again, not
      before `Retry-After`.
    * `{:server, facts}`, with `status` and `code`: any other unsuccessful answer. Sent again after 5xx, 404,
      408, 499, and a 400 that asks for it.
    * `{:unsupported, facts}`, with `status` and `code`: the store cannot do this (501, 405).
    * `{:not_a_store, facts}`, with `status`: a page of a proxy or of another server, or a redirect. Sent again.
    * `{:network, facts}`, with `reason`: the store was not reached, or the connection was lost. A write may have
      been applied. Sent again.
    * `{:denied, facts}`, with `status`, `code` and `reason`, the cause, such as no role, a wrong clock, another
      region. Status 0: there are no usable credentials, and nothing was sent. Sent again once, with new
      credentials, where they come from a service.
    * `{:credentials, facts}`, with `status` and `reason`: the service that gives out credentials fails, and it has
      given none before that the store still accepts. Asked again for up to ten seconds.
    * `{:no_bucket, facts}`, with `bucket`.
    * `{:io, facts}`, with `action` and `reason`: the file system of a directory. After the action `syncing a
      directory` a write or deletion was applied, but a power cut may undo it. Sent again.
    * `{:invalid_key, facts}`, with `reason`: keys are paths of up to 1024 bytes of UTF-8, without empty parts, `.`,
      `..` and control characters.
    * `{:too_large, facts}`, with `bytes` and `limit`.
    * `{:protocol, facts}`, with `reason`: an answer lacks a part that it must have.
    * `{:not_encodable, exception}`: a term that JSON cannot represent.
    * `{:unreadable, facts}`, with `key` and `error`: an object that is not JSON, or a stored state that this version
      of DurableServer cannot read.

  `native/state_store/src/answers/table.rs` has the answers of each provider, what they mean, and the source.
  """

  alias DurableHandoff.{Clock, Host}
  alias DurableHandoff.Native.Library
  alias DurableHandoff.Store.{Body, Listing, Native, Options, Place, Request}

  @derive {Inspect, only: [:url]}
  @enforce_keys [:ref, :url, :place, :writes, :timeout_ms, :max_retries, :page_size, :strings]
  defstruct @enforce_keys

  @typedoc "An open store. Only its URL is ever inspected."
  @type t :: %__MODULE__{
          ref: reference(),
          url: String.t(),
          place: term(),
          writes: :atomics.atomics_ref(),
          timeout_ms: pos_integer(),
          max_retries: non_neg_integer(),
          page_size: pos_integer(),
          strings: :copy | :reference
        }
  @type etag :: String.t()
  @type object :: %{body: term(), etag: etag()}
  @type error :: {:error, atom() | {atom(), map() | Exception.t()}}

  # Statistics of `writes`: how many have begun, and how long one takes.
  @begun 1
  @write_us 2

  # As often as DurableServer's own backends do.
  @update_again 5

  @intervals [:discovery_interval_ms, :heartbeat_interval_ms]

  @doc """
  Opens the store. Raises `ArgumentError`, which says what is wrong, for wrong options, URLs and `config`. Sends
  nothing to the store: `ensure_ready/1` finds out whether it answers.
  """
  @spec init_backend(keyword()) :: {:ok, %{state: t(), defaults: map(), features: map()}}
  def init_backend(opts) do
    options = Options.new!(opts)
    with {:error, error} <- Native.load(), do: raise(error)

    # Raised, because the host drops the reason of an error.
    case Library.without_arguments(fn -> Native.store_open(options.url, options.config, bounds(options)) end) do
      {:ok, ref} -> {:ok, opened(ref, options)}
      {:error, reason} -> raise ArgumentError, "DurableHandoff.Store cannot be opened: " <> problem(reason)
    end
  end

  defp opened(ref, options) do
    store =
      struct!(__MODULE__, [
        {:ref, ref},
        {:place, Place.of(options.url, options.config)},
        {:writes, :atomics.new(2, signed: false)}
        | Map.to_list(Map.take(options, [:url, :timeout_ms, :max_retries, :page_size, :strings]))
      ])

    %{
      state: store,
      defaults: options |> Map.take(@intervals) |> Map.put(:heartbeat_tracking_mode, :poll),
      features: %{heartbeat_subscribe?: false, list_includes_body?: false, conditional_delete?: true}
    }
  end

  defp problem({:invalid, %{problem: problem}}), do: problem
  defp problem({:io, %{action: action, reason: reason}}), do: "#{action}: #{reason}"
  defp problem(reason), do: inspect(reason)

  @doc """
  Whether the store answers, the bucket exists, the credentials are good, and one owner for each key can be
  kept: see "The proof at start". Memory and directory stores prove the same.
  """
  @spec ensure_ready(t()) :: :ok | error()
  def ensure_ready(%__MODULE__{} = store), do: Request.run(store, :check, [])

  @doc "Reads an object. Options: `consistent:`, `timeout:` in ms, `max_retries:`."
  @spec get_object(t(), String.t(), keyword()) :: {:ok, object()} | error()
  def get_object(%__MODULE__{} = store, key, opts \\ []) do
    with {:ok, bytes, etag} <- Request.run(store, {:get, key, opts[:consistent] == true}, opts),
         {:ok, body} <- Body.decode(bytes, store.strings, key),
         do: {:ok, %{body: body, etag: etag}}
  end

  @doc """
  Writes an object; with `etag:` only over that version of it, else `{:error, :conflict}`. Options: `etag:`,
  `timeout:` in ms, `max_retries:`. The answer's body is `data`, as with DurableServer's own backends.
  """
  @spec put_object(t(), String.t(), term(), keyword()) :: {:ok, object()} | error()
  def put_object(%__MODULE__{} = store, key, data, opts \\ []) do
    condition = if etag = opts[:etag], do: {:etag, etag}, else: :always

    with {:ok, bytes} <- Body.encode(data),
         {:ok, etag} <- put(store, {:put, key, bytes, condition, readback(data), keep?(data)}, opts),
         do: {:ok, %{body: data, etag: etag}}
  end

  @doc "Writes an object where there is none."
  @spec try_claim(t(), String.t(), term()) :: {:ok, {:claimed, etag()}} | {:error, :already_claimed} | error()
  def try_claim(%__MODULE__{} = store, key, data) do
    with {:ok, bytes} <- Body.encode(data) do
      case put(store, {:put, key, bytes, :absent, readback(data), false}, []) do
        {:ok, etag} -> {:ok, {:claimed, etag}}
        {:error, :conflict} -> {:error, :already_claimed}
        {:error, reason} -> {:error, reason}
      end
    end
  end

  # Only a write that overlapped with no other shows how long one write takes.
  defp put(%{writes: writes} = store, request, opts) do
    number = :atomics.add_get(writes, @begun, 1)
    began_us = Clock.now_us()
    answer = Request.run(store, request, opts)

    if match?({:ok, _etag}, answer) and :atomics.get(writes, @begun) == number do
      took_us = max(Clock.now_us() - began_us, 1)
      before_us = :atomics.get(writes, @write_us)
      :atomics.put(writes, @write_us, if(before_us == 0, do: took_us, else: smoothed(before_us, took_us)))
    end

    answer
  end

  # A write may have waited for earlier ones or for the disk. So a faster write replaces the value, and a
  # slower one changes it by an eighth.
  defp smoothed(before_us, took_us), do: min(took_us, before_us + max(div(before_us, 8), 1))

  @doc """
  Reads an object, gives it to `fun`, and writes what that returns over the version that was read. `fun`
  returns `{:ok, data}` or `{:error, reason}`, which is then the answer. When another writer was faster,
  everything is repeated, up to `max_retries:` times (5); then the answer is `{:error, :conflict}`. Further
  option: `timeout:` in ms, of each request.
  """
  @spec update_object(t(), String.t(), (object() -> {:ok, term()} | {:error, term()}), keyword()) ::
          {:ok, object()} | error()
  def update_object(%__MODULE__{} = store, key, fun, opts \\ []) do
    {again, opts} = Keyword.pop(opts, :max_retries)
    update_object(store, key, fun, opts, if(is_integer(again), do: again, else: @update_again))
  end

  defp update_object(store, key, fun, opts, again) do
    with {:ok, object} <- get_object(store, key, Keyword.put(opts, :consistent, true)),
         {:ok, data} <- updated!(fun.(object)) do
      case put_object(store, key, data, Keyword.put(opts, :etag, object.etag)) do
        {:error, :conflict} when again > 0 -> update_object(store, key, fun, opts, again - 1)
        result -> result
      end
    end
  end

  defp updated!({answer, _data_or_reason} = result) when answer in [:ok, :error], do: result

  defp updated!(other) do
    raise ArgumentError,
          "the function given to DurableHandoff.Store.update_object returned #{inspect(other)}, " <>
            "expected {:ok, data} or {:error, reason}"
  end

  @doc """
  Deletes an object; with `etag:` only that version of it, without one the version that it finds. A version that
  replaces this one meanwhile stays, and the answer is `:ok`. But S3 servers other than AWS delete it too when it
  is written between finding and deleting, in one round trip. Options: `etag:`, `timeout:` in ms, `max_retries:`.
  """
  @spec delete_object(t(), String.t(), keyword()) :: :ok | error()
  def delete_object(%__MODULE__{} = store, key, opts \\ []), do: Request.run(store, {:delete, key, opts[:etag]}, opts)

  @doc """
  All objects whose keys start with `prefix`, page by page, as `%{key:, etag:}`. `include_objects:` is taken
  and changes nothing, as with DurableServer's own object storage: the host reads those that it needs.

  `error_handler:` gets the reason of a failure and returns `:continue` (ask again) or `:halt` (end here).
  Without one a failure raises `DurableHandoff.Store.ListingError`. Further options: `timeout:` in ms and
  `max_retries:`, of each request.
  """
  @spec list_all_objects_stream(t(), String.t(), keyword()) :: Enumerable.t()
  def list_all_objects_stream(%__MODULE__{} = store, prefix, opts \\ []), do: Listing.stream(store, prefix, opts)

  @doc "The bytes that `put_object/4` would write."
  @spec encode(t(), term()) :: {:ok, binary()} | error()
  def encode(%__MODULE__{}, data), do: Body.encode(data)

  @doc "What `get_object/3` would make of these bytes."
  @spec decode(t(), binary()) :: {:ok, term()} | error()
  def decode(%__MODULE__{strings: strings}, data), do: Body.decode(data, strings)

  @doc """
  Counts since the store was opened: `requests` sent, of these `retries`, `slow_downs` (requests for a lower rate),
  `readbacks` (refused writes that were ours), `cached` (reads answered with what was just written).
  """
  @spec stats(t()) :: %{atom() => non_neg_integer()}
  def stats(%__MODULE__{ref: ref}), do: Native.store_stats(ref)

  @doc false
  # For DurableHandoff.Host: how long a recent write took that overlapped with no other, in microseconds.
  @spec write_us(t()) :: pos_integer() | nil
  def write_us(%__MODULE__{writes: writes}) do
    with 0 <- :atomics.get(writes, @write_us), do: nil
  end

  @doc false
  # For DurableHandoff.Host.StorageIdentity.
  @spec storage_identity(t()) :: term()
  def storage_identity(%__MODULE__{place: place}), do: place

  # A body that names its owner can only be from that owner. Other bodies may be equal by chance.
  defp readback(data), do: if(Host.StoredState.stored_state?(data), do: :always, else: :after_lost_answer)

  # Until a reservation for this node is used, cleared or runs out, no other node writes the object.
  defp keep?(data), do: Host.StoredState.reserved_for(data) == Atom.to_string(node())

  defp bounds(options) do
    %{
      max_in_flight: options.max_in_flight,
      max_waiting: options.max_waiting,
      urgent_keys: Host.heartbeat_keys(),
      attempt_timeout_ms: options.attempt_timeout_ms,
      max_object_bytes: options.max_object_bytes,
      cache_bytes: if(options.read_your_writes, do: options.read_your_writes_bytes, else: 0),
      cache_ms: if(options.read_your_writes, do: options.read_your_writes_ms, else: 0),
      assume_conditions: options.conditional_writes == :assume
    }
  end
end
