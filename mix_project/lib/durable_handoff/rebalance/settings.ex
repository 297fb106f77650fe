defmodule DurableHandoff.Rebalance.Settings do
  @moduledoc false
  # The options of the option `rebalance`, and of `DurableHandoff.rebalance/2`. `tolerance` and `min_servers` are the
  # engine's, too; the last three are those of the drain that carries a rebalance out.

  alias DurableHandoff.Schema

  @day_ms 86_400_000
  @milliseconds {:integer, 1, @day_ms}

  @schema [
    after_ms: [
      type: {:integer, 0, @day_ms},
      default: 60_000,
      doc:
        "how long the cluster must have been unchanged before this node moves its excess: no node came or went, or changed " <>
          "its release or mark. Servers that arrived here within this time stay. `DurableHandoff.rebalance/2` does not " <>
          "wait, and takes 0, too: then all may move",
      change: "to a longer time than a deploy needs between two nodes",
      example: 120_000
    ],
    tolerance: [
      type: {:number, 10},
      default: 0.05,
      doc:
        "how much of its share a node may carry above it before it moves servers. Within it a node moves servers only " <>
          "to one that lacks more than this, such as a new node, if the others cannot fill it",
      example: 0.2
    ],
    min_servers: [
      type: {:integer, 0, 10_000_000},
      default: 20,
      doc: "a node with fewer servers moves none"
    ],
    max_concurrency: [
      type: {:integer, 1, 10_000},
      default: 10,
      doc: "how many servers move at a time"
    ],
    max_per_second: [
      type: {:optional, {:integer, 1, 10_000}},
      default: nil,
      doc: "how many servers begin to move in a second. `nil`: only `max_concurrency` limits it"
    ],
    timeout_ms: [
      type: @milliseconds,
      default: 3_600_000,
      doc: "the time that one rebalance may take"
    ]
  ]

  @typedoc "The settings of one rebalance."
  @type t :: %{after_ms: non_neg_integer(), tolerance: number(), min_servers: non_neg_integer()}

  @spec docs() :: String.t()
  def docs, do: Schema.docs(@schema)

  @spec names() :: [atom()]
  def names, do: Keyword.keys(@schema)

  @doc false
  def schema, do: @schema

  @doc """
  The settings of one rebalance: `overrides`, else those of the option `rebalance`, else the defaults. `flags`: what the
  overrides may hold besides. Raises `ArgumentError`.
  """
  @spec merge(boolean() | keyword(), term(), [atom()]) :: keyword()
  def merge(configured, overrides, flags) do
    Schema.check!(@schema, overrides, "options", flags)
    configured = if is_list(configured), do: configured, else: []
    @schema |> Schema.defaults() |> Keyword.merge(configured) |> Keyword.merge(overrides)
  end

  @doc "What is wrong with a value of the option `rebalance`."
  @spec problems(String.t(), term()) :: [String.t()]
  def problems(_name, value) when is_boolean(value), do: []

  def problems(name, value) do
    if value != [] and Keyword.keyword?(value) do
      Enum.flat_map(value, fn {key, value} ->
        # With the option `rebalance` servers that have just arrived must stay for a while, or they would move
        # back and forth.
        case if(key == :after_ms, do: {:ok, [type: @milliseconds]}, else: Keyword.fetch(@schema, key)) do
          {:ok, entry} -> Schema.problems("#{name}, #{inspect(key)}", entry[:type], value)
          :error -> ["#{name}: " <> Schema.unknown("option", key, Keyword.keys(@schema))]
        end
      end)
    else
      ["#{name} got #{inspect(value)}, expected true, false or options such as [after_ms: 60_000]"]
    end
  end
end
