defmodule SimulatedStore do
  @moduledoc """
  A storage backend for tests and measurements: one process on one node of the cluster holds all objects, and
  behaves like an object store with configurable speed.

      {:ok, _} = SimulatedStore.start_link(latency_ms: 10, slots: 8)
      {DurableServer.Supervisor, name: MyApp.Durable, prefix: "x/", backend: {SimulatedStore, node: node()}}

  Guarantees:

    * Conditional writes are atomic, and a read sees every write that was answered before.
    * Each request takes one of `slots`, holds it `latency_ms`, is applied and answered. Requests wait for a
      slot in the order
      of their arrival. Latency 0 answers at once.
    * Objects are stored as bytes: every read returns a decoded object with string keys, as from JSON.
    * The part `error_rate` of all requests fails with `{:error, :simulated}` and changes nothing. `seed`
      determines which ones.
    * During an `outage` of `:all` requests, of `:writes`, or of those of one `{:node, node}`, these fail with
      `{:error, :unavailable}`, change nothing, and are not repeated.

  ## Where the store is

  `node:` in the backend's options (default: the node that starts the supervisor), and `name:` where one node
  holds several stores. The functions below take the same as `node` or `{name, node}`.

  Further backend options, all optional: `discovery_interval_ms:`, `heartbeat_interval_ms:`,
  `heartbeat_reconcile_interval_ms:` (what the backend proposes as defaults).

  ## Forcing an order in tests

  `pause/2` holds matching requests before they take a slot, `paused/1` shows them, `step/2` lets the oldest
  one through, `resume/1` all. `fail_next/4` fails the next matching request, once, without a retry.

      SimulatedStore.pause(node, {:put, "x/key"})
      # ... start something that writes "x/key"; wait until SimulatedStore.paused(node) == [put: "x/key"] ...
      SimulatedStore.resume(node)

  Keys are those of the store: prefix and server key together.
  """

  alias SimulatedStore.{Codec, Server}

  @defaults %{
    heartbeat_tracking_mode: :poll,
    discovery_interval_ms: 60_000,
    heartbeat_interval_ms: 10_000,
    heartbeat_reconcile_interval_ms: 30_000
  }

  @timeout_ms 30_000
  @call_timeout_ms 60_000

  @type location :: node() | {name :: atom(), node()}
  @type op :: :get | :put | :claim | :delete | :list
  @typedoc """
  Selects requests: all, those of a key, those of an operation on a key, or those for which a function of
  operation and key returns true.
  """
  @type matcher :: :all | String.t() | {op(), String.t()} | (op(), String.t() -> boolean())
  @type setting ::
          {:latency_ms, non_neg_integer()}
          | {:slots, pos_integer() | :infinity}
          | {:error_rate, float()}
          | {:outage, :none | :all | :writes | {:node, node()}}

  @doc "Starts the store on this node. Options: `t:setting/0`, `seed:`, `name:` (default `SimulatedStore`)."
  @spec start_link([setting() | {:seed, integer()} | {:name, atom()}]) :: GenServer.on_start()
  defdelegate start_link(opts \\ []), to: Server

  @doc false
  defdelegate child_spec(opts), to: Server

  @doc "Changes settings while the store runs."
  @spec configure(location(), [setting()]) :: :ok
  def configure(location, settings), do: call(location, {:configure, settings})

  @doc "Statistics: requests by operation, outcomes, and how many were served at a time."
  @spec stats(location()) :: %{atom() => non_neg_integer()}
  def stats(location), do: call(location, :stats)

  @spec reset_stats(location()) :: :ok
  def reset_stats(location), do: call(location, :reset_stats)

  @doc "Holds matching requests, in addition to what is held already."
  @spec pause(location(), matcher()) :: :ok
  def pause(location, matcher \\ :all), do: call(location, {:pause, matcher})

  @doc "The held requests, oldest first."
  @spec paused(location()) :: [{op(), String.t()}]
  def paused(location), do: call(location, :paused)

  @doc "Lets the oldest held request that matches through; later ones are held as before."
  @spec step(location(), matcher()) :: :ok | {:error, :none}
  def step(location, matcher \\ :all), do: call(location, {:step, matcher})

  @doc "Stops holding requests and lets all held ones through, oldest first."
  @spec resume(location()) :: :ok
  def resume(location), do: call(location, :resume)

  @doc "Answers the next such request with `{:error, error}` and does not apply it."
  @spec fail_next(location(), op(), String.t() | :any, term()) :: :ok
  def fail_next(location, op, key, error), do: call(location, {:fail_next, op, key, error})

  @doc "The object as a reader would get it, or nil. Does not count as a request and never waits."
  @spec peek(location(), String.t()) :: %{body: term(), etag: String.t()} | nil
  def peek(location, key) do
    with {etag, bytes} <- call(location, {:peek, key}), do: %{body: Codec.decode!(bytes), etag: etag}
  end

  @doc "All keys, sorted."
  @spec keys(location()) :: [String.t()]
  def keys(location), do: call(location, :keys)

  # The callbacks of DurableServer.StorageBackend. The behaviour is not declared, so that this module compiles
  # with versions of DurableServer that have other callbacks. The contract suite asserts them.

  def init_backend(opts) do
    opts = Keyword.validate!(opts, [:node, :name | Map.keys(@defaults)])
    {place, intervals} = Keyword.split(opts, [:node, :name])

    {:ok,
     %{
       state: {Keyword.get(place, :name, __MODULE__), Keyword.get(place, :node, node())},
       defaults: Map.merge(@defaults, Map.new(intervals)),
       features: %{
         heartbeat_subscribe?: false,
         list_includes_body?: false,
         conditional_delete?: true
       }
     }}
  end

  def ensure_ready(location) do
    case request(location, :ping, []) do
      :pong -> :ok
      {:error, reason} -> {:error, reason}
    end
  end

  def get_object(location, key, opts \\ []) do
    with {:ok, etag, bytes} <- request(location, {:get, key, nil}, opts),
         do: {:ok, %{body: Codec.decode!(bytes), etag: etag}}
  end

  def put_object(location, key, data, opts \\ []) do
    with {:ok, bytes} <- Codec.encode(data),
         {:ok, etag} <- request(location, {:put, key, {opts[:etag], bytes}}, opts),
         do: {:ok, %{body: data, etag: etag}}
  end

  def try_claim(location, key, data) do
    with {:ok, bytes} <- Codec.encode(data),
         {:ok, etag} <- request(location, {:claim, key, bytes}, []),
         do: {:ok, {:claimed, etag}}
  end

  def update_object(location, key, fun, opts \\ []) do
    with {:ok, object} <- get_object(location, key, Keyword.put(opts, :consistent, true)),
         {:ok, data} <- fun.(object),
         do: put_object(location, key, data, Keyword.put(opts, :etag, object.etag))
  end

  def delete_object(location, key, opts \\ []), do: request(location, {:delete, key, opts[:etag]}, opts)

  def list_all_objects_stream(location, prefix, opts \\ []) do
    # One request, made when the stream is first read.
    Stream.flat_map([prefix], fn prefix ->
      case request(location, {:list, prefix, nil}, opts) do
        # Returns no bodies even if they are requested, as the built-in object store does.
        {:ok, objects} ->
          for {key, etag, _bytes} <- objects, do: %{key: key, etag: etag}

        {:error, reason} ->
          if handler = opts[:error_handler], do: handler.(reason)
          []
      end
    end)
  end

  # For DurableHandoff.Host.StorageIdentity.
  def storage_identity(location), do: location

  def encode(_location, data), do: Codec.encode(data)

  def decode(_location, data), do: {:ok, Codec.decode!(data)}

  # Simulated errors are transient, so they are retried up to `max_retries` times.
  defp request(location, request, opts) do
    case send_request(location, request, opts[:timeout] || @timeout_ms) do
      {:error, :simulated} = failed ->
        retries = opts[:max_retries] || 0
        if retries > 0, do: request(location, request, Keyword.put(opts, :max_retries, retries - 1)), else: failed

      answer ->
        answer
    end
  end

  defp send_request({name, node}, request, timeout) do
    GenServer.call({name, node}, {:request, request}, timeout)
  catch
    :exit, {:timeout, _call} -> {:error, :timeout}
    :exit, _unreachable -> {:error, :unavailable}
  end

  # Tests and measurements call the store on busy machines.
  defp call({name, node}, message), do: GenServer.call({name, node}, message, @call_timeout_ms)
  defp call(node, message), do: call({__MODULE__, node}, message)
end
