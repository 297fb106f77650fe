defmodule DurableServer.Supervisor do
  @moduledoc """
  Durable servers under one name and one storage prefix.

      {DurableServer.Supervisor, name: MyApp.Durable, prefix: "myapp/", backend: {MyBackend, []}}

  Children (`:one_for_all`), in the order of their start; they stop in reverse:

      Group > registries > Task.Supervisor > DynamicSupervisor > heartbeat watchdog > LifecycleManager > Terminator

  Siblings that are started after it are stopped before it, while all of its children still run. Several
  supervisors with different names can run on one node.
  """

  use Supervisor

  require Logger

  alias DurableServer.{
    Capacity,
    Config,
    Heartbeats,
    LifecycleManager,
    Object,
    Options,
    Placement,
    Rehome,
    Removal,
    Server,
    SingleFlight,
    StorageBackend
  }

  alias DurableServer.{HeartbeatWatchdog, Starter, Terminator}

  @start_options ~w(max_placement_retries local_only placement_timeout existing timeout)a
  @rehome_options ~w(target_node force shutdown_timeout)a

  @type name :: atom()

  @doc "Starts the supervisor. See `DurableServer.Options`; an unknown option raises."
  @spec start_link(keyword()) :: Supervisor.on_start()
  def start_link(opts), do: Supervisor.start_link(__MODULE__, opts, name: Keyword.fetch!(opts, :name))

  @doc false
  def child_spec(opts),
    do: %{id: opts[:name] || __MODULE__, start: {__MODULE__, :start_link, [opts]}, type: :supervisor}

  defp open({module, opts}) do
    {:ok, %{state: state} = backend} = module.init_backend(opts)
    :ok = module.ensure_ready(state)
    struct!(StorageBackend, Map.put(backend, :adapter, module))
  end

  @impl true
  def init(opts) do
    options = Options.validate!(opts)
    heartbeats = if options.heartbeat_backend, do: open(options.heartbeat_backend)
    config = Config.create(options, open(options.backend), heartbeats)

    children = [
      {Group.Replica, config.name},
      {Registry, keys: :unique, name: config.server_registry},
      {Registry, keys: :unique, name: config.flight_registry},
      {Registry, keys: :duplicate, name: SingleFlight.waiting(config.flight_registry)},
      {Task.Supervisor, name: config.task_supervisor},
      {DynamicSupervisor, name: config.dynamic_supervisor, strategy: :one_for_one},
      {HeartbeatWatchdog, config},
      {LifecycleManager, config},
      {Terminator, config}
    ]

    Supervisor.init(children, strategy: :one_for_all)
  end

  @doc """
  Starts a server here, or on another node when this one is full or draining.

  Options: `local_only:`, `timeout:` (of the start), `placement_timeout:` (of one remote try), `max_placement_retries:`.
  """
  @spec start_child(name(), Starter.child(), keyword()) :: Server.result()
  def start_child(supervisor, child, opts \\ []) do
    check!(child)
    Keyword.validate!(opts, @start_options)
    Placement.start(supervisor, child, opts)
  end

  @doc """
  Returns a running server for the key, and starts one if needed. With `existing: true` in `opts` it returns
  `{:error, :not_found}` when nothing is stored.
  """
  @spec ensure_started_child(name(), Starter.child(), keyword()) :: Server.result()
  def ensure_started_child(supervisor, child, opts \\ []) do
    check!(child)
    Keyword.validate!(opts, @start_options)
    Placement.ensure(supervisor, child, opts)
  end

  # Raised in this module, as in the real package.
  defp check!({_module, args}) do
    Keyword.validate!(args, [:key, :initial_state])
    key = args[:key]
    if not is_binary(key), do: raise(ArgumentError, "expected :key to be a binary, got: #{inspect(key)}")

    if key == "__nodes" or String.starts_with?(key, "__nodes/"),
      do: raise(ArgumentError, ":key is reserved for heartbeats: #{inspect(key)}")

    if not is_map(args[:initial_state]),
      do: raise(ArgumentError, "expected :initial_state to be a map, got: #{inspect(args[:initial_state])}")
  end

  @doc "Moves a server to `target_node:`; see `DurableServer.Rehome`."
  @spec rehome_child(name(), Starter.child(), keyword()) :: Server.result()
  def rehome_child(supervisor, child, opts \\ []) do
    check!(child)
    Rehome.run(supervisor, child, Keyword.validate!(opts, @rehome_options))
  end

  @doc """
  Who runs the key, as this node knows; nil also for a dead local process, for a node that is not connected,
  and where no such supervisor runs.
  """
  @spec lookup(name(), String.t()) :: {pid(), map() | nil} | nil
  def lookup(supervisor, key) do
    with {pid, meta} <- Group.lookup(supervisor, key), true <- reachable?(pid) do
      {pid, meta.user_meta}
    else
      _none -> nil
    end
  end

  @doc "Stops a server gracefully. A permanent one comes back with the next discovery sweep of any node."
  @spec terminate_child(name(), String.t() | pid()) :: :ok | {:error, :noproc}
  def terminate_child(supervisor, key_or_pid), do: stop(supervisor, key_or_pid, :stopped_graceful)

  @doc "Stops a server, if it runs, and deletes its object."
  @spec terminate_and_delete_child(name(), String.t(), timeout()) :: :ok | {:error, term()}
  def terminate_and_delete_child(supervisor, key, timeout \\ 5_000) do
    with {:error, :noproc} <- Removal.ask(supervisor, key, :delete, timeout),
         do: Removal.delete(Config.fetch!(supervisor), key)
  end

  @doc "Stops a server, if it runs. It cannot be started until an operator allows that again."
  @spec terminate_and_cordon_child(name(), String.t(), timeout: timeout()) :: :ok | {:error, term()}
  def terminate_and_cordon_child(supervisor, key, opts \\ []) do
    Keyword.validate!(opts, [:timeout])

    with {:error, :noproc} <- Removal.ask(supervisor, key, :cordon, Keyword.get(opts, :timeout, 5_000)),
         do: Removal.cordon(Config.fetch!(supervisor), key)
  end

  @doc "Stops a server for good: only an explicit start starts it again."
  @spec terminate_child_permanent(name(), String.t() | pid()) :: :ok | {:error, :noproc}
  def terminate_child_permanent(supervisor, key_or_pid), do: stop(supervisor, key_or_pid, :stopped_permanent)

  @spec which_children(name()) :: [{:undefined, pid(), :worker, [module()]}]
  def which_children(supervisor), do: DynamicSupervisor.which_children(Config.fetch!(supervisor).dynamic_supervisor)

  @spec count_children(name()) :: %{atom() => non_neg_integer()}
  def count_children(supervisor), do: DynamicSupervisor.count_children(Config.fetch!(supervisor).dynamic_supervisor)

  @doc "The stored information about a key. One read."
  @spec get_server_info(name(), String.t()) :: {:ok, map()} | {:error, :not_found | term()}
  def get_server_info(supervisor, key) do
    config = Config.fetch!(supervisor)

    with {:ok, %{meta: meta}} <- Object.read(config.storage_backend, Config.storage_key(config, key)) do
      info = Map.take(meta, [:permanent, :status, :module, :pid, :node_ref, :last_heartbeat_at, :sticky_placement])
      {:ok, Map.merge(info, %{key: key, node: meta.node_str})}
    end
  end

  @doc "The nodes whose heartbeats have been read from the store."
  @spec get_cluster_nodes(name()) :: %{String.t() => %{heartbeat_meta: map() | nil}}
  def get_cluster_nodes(supervisor) do
    for {node, heartbeat} <- Heartbeats.cached_newest(Config.fetch!(supervisor)),
        into: %{},
        do: {node, Map.take(heartbeat, [:heartbeat_meta, :node_ref, :timestamp, :capacity, :resources, :env_vars])}
  end

  @doc "The number of servers that run here and the limit, in total and for each limited module. nil without limits."
  @spec current_capacity(name()) :: map() | nil
  def current_capacity(supervisor), do: Capacity.current(Config.fetch!(supervisor))

  @doc """
  Identifies this run of the supervisor: its start time in microseconds. nil when the supervisor does not run,
  and until it has created its tables.
  """
  @spec node_ref(name()) :: integer() | nil
  def node_ref(supervisor) do
    case Config.fetch(supervisor) do
      {:ok, config} ->
        config.node_ref

      # DurableServer logs the same warning, also while its supervisor starts.
      :error ->
        Logger.warning("no ets table found for #{inspect(supervisor)}")
        nil
    end
  end

  @spec ready?(name()) :: boolean()
  def ready?(supervisor) do
    case Config.fetch(supervisor) do
      {:ok, config} -> Config.ready?(config)
      :error -> false
    end
  end

  @doc "Waits at most `timeout:` ms (default 5,000), asking every `poll_interval:` ms (default 100)."
  @spec wait_until_ready(name(), timeout: non_neg_integer(), poll_interval: pos_integer()) :: :ok | {:error, :timeout}
  def wait_until_ready(supervisor, opts \\ []) do
    deadline = System.monotonic_time(:millisecond) + Keyword.get(opts, :timeout, 5_000)
    await_ready(supervisor, deadline, Keyword.get(opts, :poll_interval, 100))
  end

  defp await_ready(supervisor, deadline, interval) do
    remaining = deadline - System.monotonic_time(:millisecond)

    cond do
      ready?(supervisor) ->
        :ok

      remaining <= 0 ->
        {:error, :timeout}

      true ->
        Process.sleep(min(interval, remaining))
        await_ready(supervisor, deadline, interval)
    end
  end

  @doc "The servers of this node with their registered facts. Does not read the store."
  @spec __local_global_members__(name()) :: %{String.t() => {pid(), map()}}
  def __local_global_members__(supervisor),
    do: for({key, pid, meta} <- Group.local_registrations(supervisor), into: %{}, do: {key, {pid, meta}})

  @doc "The configuration; raises when the supervisor is not up."
  @spec __get_config__(name()) :: Config.t()
  def __get_config__(supervisor), do: Config.fetch!(supervisor)

  @spec __get_sticky_placement_for_module__(name(), module()) :: keyword() | nil
  def __get_sticky_placement_for_module__(supervisor, module), do: Config.fetch!(supervisor).sticky_placement[module]

  defp stop(supervisor, key, status) when is_binary(key) do
    case lookup(supervisor, key) do
      {pid, _meta} -> stop(supervisor, pid, status)
      nil -> {:error, :noproc}
    end
  end

  defp stop(_supervisor, pid, status) when is_pid(pid),
    do: GenServer.call(pid, {:durable, {:stop_with_status, status, :normal}})

  defp reachable?(pid) when node(pid) == node(), do: Process.alive?(pid)
  defp reachable?(pid), do: node(pid) in Node.list()
end
