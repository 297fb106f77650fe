defmodule HandoffDemo.Config do
  @moduledoc """
  What the driver tells a node when it starts it: one term, as hexadecimal digits in an environment variable.
  """

  @variable "HANDOFF_DEMO_NODE"
  @keys [
    :label,
    :role,
    :mode,
    :generation,
    :token,
    :port,
    :store,
    :discovery_interval_ms,
    :heartbeat_interval_ms,
    :max_concurrency,
    :concurrency
  ]

  # The token is in no log.
  @derive {Inspect, except: [:token]}
  @enforce_keys @keys
  defstruct @keys

  @typedoc """
  `label` names the node in the report, `token` proves to the driver who connects to `port`, `store` is the full name of the store's
  node, `generation` this node's release.
  """
  @type t :: %__MODULE__{
          label: String.t(),
          role: :store | :client | :app,
          mode: :graceful | :naive | :handoff,
          generation: String.t(),
          token: String.t(),
          port: :inet.port_number(),
          store: node(),
          discovery_interval_ms: pos_integer(),
          heartbeat_interval_ms: pos_integer(),
          max_concurrency: pos_integer(),
          concurrency: :adaptive | :fixed
        }

  @doc "This node's configuration; raises without one."
  @spec from_env!() :: t()
  def from_env! do
    case System.fetch_env(@variable) do
      {:ok, digits} ->
        # Written by the process that started this one.
        config = digits |> Base.decode16!(case: :lower) |> :erlang.binary_to_term()
        struct!(__MODULE__, %{config | store: String.to_atom(config.store)})

      :error ->
        raise "#{@variable} is not set: nodes of the demo are started by integration/demo"
    end
  end

  @doc "The name of every node's `DurableServer.Supervisor`."
  @spec supervisor() :: atom()
  def supervisor, do: HandoffDemo.Durable

  @doc "The options of this node's supervisor."
  @spec supervisor_options(t()) :: keyword()
  def supervisor_options(config) do
    store = [
      node: config.store,
      discovery_interval_ms: config.discovery_interval_ms,
      heartbeat_interval_ms: config.heartbeat_interval_ms
    ]

    [name: supervisor(), prefix: "demo/", backend: {SimulatedStore, store}]
  end
end
