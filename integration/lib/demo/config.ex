defmodule HandoffDemo.Config do
  @moduledoc """
  The configuration that the driver gives a node at its start: one term, as hexadecimal digits in an
  environment variable.
  """

  @variable "HANDOFF_DEMO_NODE"
  # Given to the library as they are.
  @options ~w(max_concurrency concurrency generation executor timeout_ms attempt_timeout_ms start_leftovers)a

  # The token must not be logged.
  @derive {Inspect, except: [:token]}
  @enforce_keys @options ++
                  ~w(label role mode token port store client discovery_interval_ms heartbeat_interval_ms
                     heartbeat_max_age_ms slow_child_ms newer rebalance_after_ms)a
  defstruct @enforce_keys

  @typedoc """
  `label` names the node in the report, `token` identifies the node to the driver at `port`, `store` is the
  node that acts as the store, or a URL, `executor` decides in drains of this node, `client` says how clients
  call, `generation` is this node's release, `newer` says whether it has `HandoffDemo.Newer`, and
  `slow_child_ms` is the time that a child takes to stop before the servers.
  """
  @type t :: %__MODULE__{
          label: String.t(),
          role: :store | :client | :app,
          mode: :graceful | :naive | :handoff,
          generation: String.t(),
          token: String.t(),
          port: :inet.port_number(),
          store: {:simulated, node()} | {:url, String.t()},
          executor: :embedded | {:node, node()},
          client: :plain | :handoff,
          discovery_interval_ms: pos_integer(),
          heartbeat_interval_ms: pos_integer(),
          max_concurrency: pos_integer(),
          concurrency: :adaptive | :fixed,
          timeout_ms: pos_integer(),
          attempt_timeout_ms: pos_integer(),
          heartbeat_max_age_ms: pos_integer() | nil,
          slow_child_ms: non_neg_integer(),
          newer: boolean(),
          rebalance_after_ms: pos_integer() | nil,
          start_leftovers: boolean()
        }

  @doc "This node's configuration; raises without one."
  @spec from_env!() :: t()
  def from_env! do
    case System.fetch_env(@variable) do
      {:ok, digits} ->
        # The process that started this one has written the value.
        config = digits |> Base.decode16!(case: :lower) |> :erlang.binary_to_term()
        struct!(__MODULE__, %{config | store: store(config.store), executor: executor(config.executor)})

      :error ->
        raise "#{@variable} is not set: nodes of the demo are started by integration/demo"
    end
  end

  @doc "The name of every node's `DurableServer.Supervisor`."
  @spec supervisor() :: atom()
  def supervisor, do: HandoffDemo.Durable

  @doc "The options of this node's supervisor."
  @spec supervisor_options(t()) :: keyword()
  def supervisor_options(config), do: [name: supervisor(), prefix: "demo/", backend: backend(config)] ++ ages(config)

  @doc "This node's `handoff_on_shutdown`."
  @spec handoff_options(t()) :: keyword()
  def handoff_options(config) do
    config
    |> Map.take(@options)
    |> Map.to_list()
    |> Keyword.merge(rebalance(config.rebalance_after_ms))
  end

  defp rebalance(nil), do: []
  defp rebalance(after_ms), do: [rebalance: [after_ms: after_ms, min_servers: 0]]

  @doc "Whether this node uses the library."
  @spec library?(t()) :: boolean()
  def library?(%{role: :app, mode: :handoff}), do: true
  def library?(%{role: :client, client: :handoff}), do: true
  def library?(%{role: role, store: {:url, _url}}) when role != :store, do: true
  def library?(_config), do: false

  defp backend(config) do
    intervals = [
      discovery_interval_ms: config.discovery_interval_ms,
      heartbeat_interval_ms: config.heartbeat_interval_ms
    ]

    case config.store do
      {:simulated, node} -> {SimulatedStore, [node: node] ++ intervals}
      {:url, url} -> {DurableHandoff.Store, [url: url] ++ intervals}
    end
  end

  # How long a heartbeat counts. The stand-in takes it from the application's environment: see
  # HandoffDemo.Main.
  defp ages(%{heartbeat_max_age_ms: nil}), do: []

  defp ages(config) do
    if System.get_env("DURABLE_SERVER") == "external",
      do: [heartbeat_staleness_threshold_ms: config.heartbeat_max_age_ms],
      else: []
  end

  defp store({:simulated, name}), do: {:simulated, String.to_atom(name)}
  defp store({:url, url}), do: {:url, url}

  defp executor(:embedded), do: :embedded
  defp executor({:node, name}), do: {:node, String.to_atom(name)}
end
