defmodule DurableServer do
  @moduledoc """
  A GenServer whose state outlives its process and its node.

      defmodule Counter do
        use DurableServer, vsn: 1

        def init(state), do: {:ok, state, permanent: true}
        def dump_state(state), do: %{"count" => state.count}
        def load_state(_old_vsn, %{"count" => count}), do: %{count: count}
        def handle_call(:bump, _from, state), do: {:reply, :ok, %{state | count: state.count + 1}, :sync}
      end

      DurableServer.Supervisor.start_child(MyApp.Durable, {Counter, key: "c1", initial_state: %{count: 0}})

  This is **not** the Hex package `durable_server`. It is a test double with a contract: it does what
  `:durable_handoff` relies on exactly as version 0.1.4 of that package does (its main branch at e197e4d), and
  little else. The contract suite of the integration project asserts that; the README says where the double is
  simpler.

  What it guarantees: one key has at most one owner, because every change of owner is a conditional write; the state in the
  store is the last one that was synced, and a graceful stop syncs.

  ## Callbacks

  `init/1` (or `init/2` with the supervisor's `init_info` among the facts) returns `{:ok, state}`,
  `{:ok, state, opts}` or `:ignore`. Options: `permanent:` (restarted elsewhere by itself; default false),
  `meta:` (a map that others see in `lookup/2`), `auto_sync:` (a change is stored at the end of the callback;
  default false) and `sync_every_ms:` (changes are stored this often; default 30_000).

  `handle_call/3`, `handle_cast/2`, `handle_info/2`, `handle_continue/2` and `terminate/2` are those of
  GenServer. A return tuple that ends in `:sync` stores the state before anything else happens. Reasons to
  stop are `:normal`, `:permanent` (only an explicit start brings it back), `:delete`, the same in
  `{:shutdown, reason}`, and `{:error, reason}`; any other is a crash.

  `dump_state/1` gives the map to store; `load_state/2` makes a state of it again, after the store turned its keys into strings.
  """

  alias DurableServer.{Meta, Object, StorageBackend, StoredState}

  @type state :: map()
  @type opts :: [permanent: boolean(), meta: map(), auto_sync: boolean(), sync_every_ms: pos_integer()]
  @type init_result :: {:ok, state()} | {:ok, state(), opts()} | :ignore | {:stop, term()}

  @callback init(state()) :: init_result()
  @callback init(state(), info :: map()) :: init_result()
  @callback handle_call(term(), GenServer.from(), state()) :: tuple()
  @callback handle_cast(term(), state()) :: tuple()
  @callback handle_info(term(), state()) :: tuple()
  @callback handle_continue(term(), state()) :: tuple()
  @callback terminate(term(), state()) :: term()
  @callback dump_state(state()) :: map()
  @callback load_state(old_vsn :: term(), map()) :: state()

  @optional_callbacks init: 1, init: 2, handle_call: 3, handle_cast: 2, handle_info: 2, handle_continue: 2, terminate: 2

  defmacro __using__(opts) do
    quote location: :keep do
      @behaviour DurableServer

      @doc false
      def __durable_server_config__, do: %{vsn: unquote(Keyword.fetch!(opts, :vsn))}
    end
  end

  @doc "Reads what is stored under `prefix <> key`."
  @spec fetch_stored_state(Object.backend(), %{key: String.t(), prefix: String.t()}, keyword()) ::
          {:ok, StoredState.t()} | {:error, :not_found | term()}
  def fetch_stored_state(backend, %{key: key, prefix: prefix}, _opts \\ []), do: Object.read(backend, prefix <> key)

  @doc """
  Drops the restart reservation of a stored state, if the object is still the one that `etag` names. Without it any node
  may start the server again.
  """
  @spec clear_restart_attempt(Object.backend(), %{
          key: String.t(),
          prefix: String.t(),
          body: StoredState.t(),
          etag: term()
        }) ::
          :ok | {:error, :conflict | term()}
  def clear_restart_attempt(backend, %{key: key, prefix: prefix, body: %StoredState{} = stored, etag: etag}) do
    cleared = %{stored | meta: Meta.release(stored.meta), etag: etag}
    with {:ok, _object} <- StorageBackend.put_object(backend, prefix <> key, cleared, etag: etag), do: :ok
  end
end
