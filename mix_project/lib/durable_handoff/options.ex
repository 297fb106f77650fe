defmodule DurableHandoff.Options do
  import DurableHandoff.Schema, only: [is_name: 1]

  alias DurableHandoff.Schema

  @day_ms 86_400_000
  # Fits the engine's 32-bit priorities with room to spare.
  @max_priority 1_000_000_000

  @milliseconds {:integer, 1, @day_ms}

  # The one place where an option exists: checks, defaults, types and documentation are all read from here.
  # `engine: true` passes it to the engine, which has a field of the same name
  # (native/handoff_core/src/config.rs).
  @schema [
    enabled: [
      type: :boolean,
      default: true,
      doc: "`false` switches handoff off and leaves the existing shutdown as it is"
    ],
    timeout_ms: [
      type: @milliseconds,
      default: 30_000,
      doc: "time for the whole drain; a shutdown never waits longer for it"
    ],
    max_concurrency: [
      engine: true,
      type: {:integer, 1, 10_000},
      default: 50,
      doc: "servers moved at a time, and so the servers that are down at once because of the drain"
    ],
    concurrency: [
      engine: true,
      type: {:one_of, [:adaptive, :fixed]},
      default: :adaptive,
      doc: "`:adaptive` finds the smallest concurrency with full throughput; `:fixed` always uses `max_concurrency`"
    ],
    max_concurrency_per_target: [
      engine: true,
      type: {:optional, {:integer, 1, 10_000}},
      default: nil,
      doc: "the same for one target node; `nil`: only `max_concurrency` counts"
    ],
    attempt_timeout_ms: [
      type: @milliseconds,
      default: 15_000,
      doc: "time for one attempt to move a server, at most what is left of `timeout_ms`"
    ],
    max_attempts: [
      engine: true,
      type: {:integer, 1, 100},
      default: 3,
      doc: "attempts to move one server; failures of the store do not count"
    ],
    max_consecutive_failures: [
      engine: true,
      type: {:integer, 1, 1_000_000},
      default: 10,
      doc: "failed attempts in a row after which the drain ends, and the existing shutdown stops the rest"
    ],
    max_failure_ratio: [
      spec: quote(do: number()),
      engine: true,
      type: {:when, &__MODULE__.ratio?/1, "a number above 0 and at most 1"},
      default: 0.5,
      doc: "the same for the part of the latest 20 attempts that failed"
    ],
    wait_for_target_ms: [
      type: {:optional, {:integer, 0, @day_ms}},
      default: nil,
      doc:
        "how long a drain without any target waits for one, for deploys that stop the old node before they start the " <>
          "new one; no running server is stopped meanwhile. `nil`: 5,000 while a node is known that was lost or is not " <>
          "connected, else 0"
    ],
    reconnect: [
      type: :boolean,
      default: true,
      doc:
        "a drain connects to nodes that are healthy by their heartbeats in the store but not connected, and to nodes " <>
          "that disconnect from it, as a cluster manager makes them do when a pod terminates " <>
          "(see `DurableHandoff.Drain.Peers`)"
    ],
    sticky: [
      engine: true,
      type: {:one_of, [:gated, :any_level, :ignore]},
      default: :gated,
      doc:
        "`:gated`: sticky placement as in DurableServer, a level is open when the delays before it are 0; " <>
          "`:any_level`: nodes of a better level are preferred, all are accepted; `:ignore`: levels do not count"
    ],
    prefer: [
      engine: true,
      type: {:one_of, [:new_release, :none]},
      default: :new_release,
      doc: "`:new_release`: nodes of a newer release first, so that a rolling deploy moves a server once or twice"
    ],
    generation: [
      type: {:optional, :string},
      default: nil,
      doc:
        "the name of this node's release, for `prefer`. `nil`: `RELEASE_VSN`, which releases set; without it the version " <>
          "of the application that starts the supervisor"
    ],
    modules: [
      spec: quote(do: %{module() => boolean() | [priority: integer()]}),
      type: {:problems, &__MODULE__.module_problems/2},
      default: %{},
      doc: "`%{Mod => false}` never moves servers of `Mod`; `%{Mod => [priority: 10]}` moves them earlier (default 0)"
    ],
    eligible: [
      spec: quote(do: :all | :permanent | (map() -> boolean() | integer())),
      type: {:when, &__MODULE__.eligible?/1, ":all, :permanent or a function of one argument"},
      default: :all,
      doc:
        "`:all`; `:permanent` (costs one read of the store for each server, see `DurableHandoff.Policy`); or a function of " <>
          "`%{key: key, module: module, meta: meta}` that returns `true`, `false` or a priority"
    ],
    executor: [
      spec: quote(do: :auto | :embedded | {:node, node()}),
      type: {:when, &__MODULE__.executor?/1, ":auto, :embedded or {:node, name}"},
      default: :auto,
      doc:
        "what decides: `:embedded` is the Rust engine in this VM; `{:node, name}` the Rust node of that name, if it has " <>
          "announced itself, else `:embedded` with a warning; `:auto` a Rust node when one has, else `:embedded` " <>
          "(see `DurableHandoff.Executor`)"
    ],
    start_leftovers: [
      type: :boolean,
      default: true,
      doc:
        "servers that a drain cannot move in time are offered to other nodes, which start them as soon as they are " <>
          "stopped here, and this node accepts such offers (see `DurableHandoff.Leftovers`); `false`: neither"
    ],
    quiet: [
      type: :boolean,
      default: true,
      doc:
        "while a drain runs, the host package's modules log warnings and errors only (see `DurableHandoff.Drain.Quiet`)"
    ],
    shutdown_budget_ms: [
      type: {:optional, @milliseconds},
      default: nil,
      doc:
        "how long the platform waits before it kills the node, counted from SIGTERM or " <>
          "`DurableHandoff.prepare_stop/0`. The drain is cut to what is left of it (see `DurableHandoff.Deadline`); a " <>
          "warning at start names a budget that is too small"
    ]
  ]

  @docs Schema.docs(@schema)

  @moduledoc """
  The options of `handoff_on_shutdown`.

  Guarantee: every part of the drain can use what `new!/1` returns without a check. Anything else raises
  `ArgumentError` with every problem at once, each naming the option, its value and what it takes.

  #{@docs}

  The option absent, `nil` or `false`: no handoff. `true` alone: all defaults.
  """

  defstruct [:given | Keyword.keys(@schema)]

  @type t :: %__MODULE__{unquote_splicing([{:given, quote(do: [atom()])} | Schema.specs(@schema)])}

  @doc "The options as a Markdown table, for other modules' documentation."
  @spec docs() :: String.t()
  def docs, do: @docs

  @doc "The options that the engine takes as they are."
  @spec engine(t()) :: map()
  def engine(%__MODULE__{} = options), do: Map.take(options, for({name, entry} <- @schema, entry[:engine], do: name))

  @doc false
  def schema, do: @schema

  @doc """
  Checks the value of `handoff_on_shutdown`. `:disabled` when it asks for no handoff.

      iex> DurableHandoff.Options.new!(nil)
      :disabled
      iex> DurableHandoff.Options.new!(timeout_ms: 10_000).timeout_ms
      10000
      iex> DurableHandoff.Options.new!(timeout: 10_000)
      ** (ArgumentError) invalid handoff_on_shutdown:
        * unknown option :timeout, did you mean :timeout_ms?
  """
  @spec new!(term()) :: t() | :disabled
  def new!(absent) when absent in [nil, false, :disabled], do: :disabled
  def new!(true), do: new!([])
  def new!(%__MODULE__{} = checked), do: checked

  def new!(given) do
    case given
         |> cast!(struct!(__MODULE__, [given: []] ++ Schema.defaults(@schema)), "handoff_on_shutdown")
         |> with_generation() do
      %{enabled: false} -> :disabled
      options -> options
    end
  end

  @doc """
  `options` with `overrides` (of one `DurableHandoff.drain/2` or `plan/2`), checked the same way.
  """
  @spec override!(t(), term()) :: t()
  def override!(%__MODULE__{} = options, overrides), do: %{cast!(overrides, options, "options") | enabled: true}

  @doc "Whether `value` can be a server's priority."
  @spec priority?(term()) :: boolean()
  def priority?(value), do: is_integer(value) and abs(value) <= @max_priority

  @doc false
  def ratio?(value), do: is_number(value) and value > 0 and value <= 1

  @doc false
  def eligible?(value), do: value in [:all, :permanent] or is_function(value, 1)

  @doc false
  def executor?({:node, name}), do: is_name(name)
  def executor?(value), do: value in [:auto, :embedded]

  @doc false
  def module_problems(name, modules) when is_map(modules) and not is_struct(modules) do
    Enum.flat_map(modules, fn
      {module, policy} when is_atom(module) -> policy_problems("#{name} of #{inspect(module)}", policy)
      {other, _policy} -> ["a key of #{name} got #{inspect(other)}, expected a module"]
    end)
  end

  def module_problems(name, other) do
    ["#{name} got #{inspect(other)}, expected a map such as %{MyApp.Room => [priority: 10], MyApp.Cache => false}"]
  end

  defp policy_problems(_name, policy) when is_boolean(policy), do: []

  defp policy_problems(name, policy) do
    if policy != [] and Keyword.keyword?(policy) do
      Enum.flat_map(policy, fn
        {:priority, value} ->
          Schema.problems("#{name}, :priority", {:integer, -@max_priority, @max_priority}, value)

        {other, _value} ->
          ["#{name}: " <> Schema.unknown("key", other, [:priority])]
      end)
    else
      ["#{name} got #{inspect(policy)}, expected true, false or [priority: integer]"]
    end
  end

  defp cast!(given, base, what) do
    Schema.check!(@schema, given, what)
    options = struct!(base, [{:given, Enum.uniq(base.given ++ Keyword.keys(given))} | given])
    Schema.raise_on(relations(options), what)
    options
  end

  # Checks between options that are each fine by themselves.
  defp relations(options) do
    for {name, other, why} <- [
          {:wait_for_target_ms, :timeout_ms, "the wait is part of the drain"},
          {:max_concurrency_per_target, :max_concurrency, "a higher one would never take effect"}
        ],
        value = Map.fetch!(options, name),
        limit = Map.fetch!(options, other),
        value > limit do
      "#{inspect(name)} got #{value}, expected at most #{inspect(other)} (#{limit}): #{why}"
    end
  end

  defp with_generation(%{given: given} = options) do
    if :generation in given, do: options, else: %{options | generation: release_version()}
  end

  # RELEASE_VSN is set by the scripts of a release. The application is the one whose supervision tree the
  # calling process is in.
  defp release_version do
    case System.get_env("RELEASE_VSN", "") do
      "" -> application_version(:application.get_application(self()))
      version -> version
    end
  end

  defp application_version({:ok, app}),
    do: with(vsn when is_list(vsn) <- Application.spec(app, :vsn), do: to_string(vsn))

  defp application_version(:undefined), do: nil
end
