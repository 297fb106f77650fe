defmodule DurableServer.LifecycleManager do
  @moduledoc """
  Sends this node's heartbeats, reads those of the others, and restarts permanent servers that lost their node.

  Heartbeats go on until the process stops, also while draining; discovery does not.
  """

  use GenServer

  require Logger

  alias DurableServer.{Capacity, Config, Discovery, Eligibility, HeartbeatWatchdog, Heartbeats, Object, Sticky}

  @doc false
  @spec start_link(Config.t()) :: GenServer.on_start()
  def start_link(config), do: GenServer.start_link(__MODULE__, config, name: config.lifecycle_manager)

  @doc """
  Marks this node draining: discovery ends, starts are refused on this node, and all other nodes are told.
  This cannot be undone. Exits when the supervisor does not run or does not answer in time.
  """
  @spec stop_discovery(atom(), timeout()) :: :ok
  def stop_discovery(supervisor, timeout \\ 5_000),
    do: GenServer.call(:"#{supervisor}_lifecycle_manager", :stop_discovery, timeout)

  @doc """
  The nodes that may take a server of `module`, best first, by the rules of `DurableServer.Eligibility`.

  Options: `limit:` (default 3); `sticky_placement:` the server's levels; or `key:` to read them from the store.
  """
  @spec find_eligible_nodes(atom(), module(), keyword()) :: [node()]
  def find_eligible_nodes(supervisor, module, opts \\ []) do
    config = Config.fetch!(supervisor)
    now = System.system_time(:millisecond)

    query = %{
      local: Atom.to_string(node()),
      module: module,
      now: now,
      future_skew_ms: config.heartbeat_future_skew_tolerance_ms,
      levels: levels(config, opts)
    }

    config
    |> Heartbeats.all()
    |> Eligibility.eligible(query)
    |> Enum.take(opts[:limit] || 3)
    |> Enum.map(&String.to_existing_atom/1)
  end

  @doc "The health of a node, by its newest heartbeat."
  @spec lookup_node_health(%{supervisor: atom(), node_str: String.t()}) :: {:healthy, map()} | :stale | :unknown
  def lookup_node_health(%{supervisor: supervisor, node_str: node_str}) do
    config = Config.fetch!(supervisor)

    case Heartbeats.newest(config) do
      %{^node_str => heartbeat} -> if Eligibility.fresh?(heartbeat, config), do: {:healthy, heartbeat}, else: :stale
      %{} -> :unknown
    end
  end

  @doc "The region that a node's heartbeat names."
  @spec region(Config.t(), node()) :: String.t() | nil
  def region(config, node) do
    case Heartbeats.newest(config)[Atom.to_string(node)] do
      %{heartbeat_meta: %{"placement_region" => region}} -> region
      _unknown -> nil
    end
  end

  @impl true
  def init(config), do: {:ok, %{config: config, tasks: %{}}, {:continue, :get_ready}}

  @impl true
  def handle_continue(:get_ready, state), do: {:noreply, get_ready(state)}

  @impl true
  def handle_call(:stop_discovery, _from, state) do
    {sweep, tasks} = Map.pop(state.tasks, :discovery)
    if sweep, do: Task.shutdown(sweep, :brutal_kill)
    Config.drain(state.config)
    beat(state.config)
    {:reply, :ok, %{state | tasks: tasks}}
  end

  @impl true
  # With each of its own heartbeats it reads those of the others; the time until the next one begins after that.
  def handle_info(:beat, state) do
    beat(state.config)
    {:noreply, run(state, :reconcile, &Heartbeats.reconcile/1)}
  end

  def handle_info(:discover, state) do
    again(:discover, state.config.discovery_interval_ms)

    if Config.draining?(state.config),
      do: {:noreply, state},
      else: {:noreply, run(state, :discovery, &Discovery.sweep/1)}
  end

  def handle_info({ref, _result}, state) when is_reference(ref) do
    Process.demonitor(ref, [:flush])
    {:noreply, ended(state, ref)}
  end

  def handle_info({:DOWN, ref, :process, _pid, reason}, state) do
    for {name, %Task{ref: ^ref}} <- state.tasks, do: Logger.error("#{name} failed: #{inspect(reason)}")
    {:noreply, ended(state, ref)}
  end

  def handle_info(_stray, state), do: {:noreply, state}

  defp get_ready(%{config: config} = state) do
    beat(config)
    Heartbeats.reconcile(config)
    Config.ready(config)
    again(:beat, config.heartbeat_interval_ms)
    again(:discover, delay_ms(config.initial_discovery_delay_ms))
    state
  end

  defp delay_ms({low, high}), do: Enum.random(low..high)
  defp delay_ms(delay), do: delay

  # Only one task of each kind runs at a time, because an older one that ends later would overwrite newer
  # results.
  defp run(%{tasks: tasks} = state, name, _fun) when is_map_key(tasks, name), do: state

  defp run(%{config: config} = state, name, fun) do
    task = Task.Supervisor.async_nolink(config.task_supervisor, fn -> fun.(config) end)
    put_in(state.tasks[name], task)
  end

  defp ended(%{tasks: tasks} = state, ref) do
    if match?(%{reconcile: %{ref: ^ref}}, tasks), do: again(:beat, state.config.heartbeat_interval_ms)
    %{state | tasks: Map.reject(tasks, fn {_name, task} -> task.ref == ref end)}
  end

  defp beat(config) do
    facts = %{
      capacity: Capacity.current(config),
      resources: Capacity.resources(config),
      env_vars: Sticky.env_vars(config.sticky_placement),
      heartbeat_meta: heartbeat_meta(config)
    }

    case Heartbeats.beat(config, facts) do
      :ok -> HeartbeatWatchdog.beaten(config)
      {:error, reason} -> Logger.warning("heartbeat not stored: #{inspect(reason)}")
    end
  end

  defp heartbeat_meta(config) do
    users = if is_function(config.heartbeat_meta, 0), do: config.heartbeat_meta.(), else: config.heartbeat_meta
    region = if config.placement_region, do: %{"placement_region" => config.placement_region}, else: %{}
    draining = if Config.draining?(config), do: %{"draining" => true}, else: %{}

    meta =
      Map.new(users || %{}, fn {key, value} -> {to_string(key), value} end) |> Map.merge(region) |> Map.merge(draining)

    if meta == %{}, do: nil, else: meta
  end

  defp levels(config, opts) do
    case {Keyword.fetch(opts, :sticky_placement), opts[:key]} do
      {{:ok, levels}, _key} ->
        levels

      {:error, nil} ->
        nil

      {:error, key} ->
        case Object.read(config.storage_backend, Config.storage_key(config, key), consistent: false) do
          {:ok, %{meta: meta}} -> meta.sticky_placement
          {:error, _reason} -> nil
        end
    end
  end

  defp again(message, after_ms), do: Process.send_after(self(), message, after_ms)
end
