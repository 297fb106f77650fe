defmodule DurableServer.Config do
  @moduledoc """
  The configuration of a running supervisor: its options, its backend, and the names of its processes and tables.

  It is in an ETS table of the supervisor process, with two flags that every start reads: whether the node is ready,
  and whether it is shutting down. The table ends with the supervisor.
  """

  alias DurableServer.StorageBackend

  @type t :: map()

  @backend_defaults %{
    heartbeat_tracking_mode: :poll,
    discovery_interval_ms: 60_000,
    heartbeat_interval_ms: 10_000
  }

  @doc "Builds the configuration and its tables. To be called by the supervisor process, which then owns them."
  @spec create(map(), StorageBackend.t(), nil | StorageBackend.t()) :: t()
  def create(options, storage, heartbeats) do
    name = options.name
    heartbeats = heartbeats || storage
    defaults = Map.merge(@backend_defaults, heartbeats.defaults)

    config =
      Map.merge(options, %{
        storage_backend: storage,
        heartbeat_backend: heartbeats,
        discovery_interval_ms: options.discovery_interval_ms || defaults.discovery_interval_ms,
        heartbeat_interval_ms: options.heartbeat_interval_ms || defaults.heartbeat_interval_ms,
        node_ref: System.system_time(:microsecond),
        ets_table: table(name),
        heartbeat_table: :"durable_server_heartbeats_#{name}",
        server_registry: :"#{name}_servers",
        flight_registry: :"#{name}_flights",
        task_supervisor: :"#{name}_task_sup",
        dynamic_supervisor: :"#{name}_dynamic",
        heartbeat_watchdog: :"#{name}_heartbeat_watchdog",
        lifecycle_manager: :"#{name}_lifecycle_manager"
      })

    for table <- [config.ets_table, config.heartbeat_table],
        do: :ets.new(table, [:named_table, :set, :public, read_concurrency: true])

    :ets.insert(config.ets_table, {:config, config})
    config
  end

  @doc "The configuration of a supervisor that is up."
  @spec fetch(atom()) :: {:ok, t()} | :error
  def fetch(name) do
    {:ok, :ets.lookup_element(table(name), :config, 2)}
  rescue
    ArgumentError -> :error
  end

  @spec fetch!(atom()) :: t()
  def fetch!(name) do
    case fetch(name) do
      {:ok, config} -> config
      :error -> raise ArgumentError, "DurableServer.Supervisor #{inspect(name)} is not running on #{node()}"
    end
  end

  @spec ready?(t()) :: boolean()
  def ready?(config), do: :ets.member(config.ets_table, :ready)

  @spec ready(t()) :: true
  def ready(config), do: :ets.insert(config.ets_table, {:ready, true})

  @spec draining?(t()) :: boolean()
  def draining?(config), do: :ets.member(config.ets_table, :shutting_down)

  @doc "From now on this node starts no servers. This cannot be undone."
  @spec drain(t()) :: true
  def drain(config), do: :ets.insert(config.ets_table, {:shutting_down, true})

  @spec storage_key(t(), String.t()) :: String.t()
  def storage_key(config, key), do: config.prefix <> key

  defp table(name), do: :"durable_server_#{name}"
end
