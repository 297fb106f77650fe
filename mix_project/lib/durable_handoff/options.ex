defmodule DurableHandoff.Options do
  import DurableHandoff.Schema, only: [is_name: 1]

  alias DurableHandoff.Rebalance.Settings
  alias DurableHandoff.Schema

  @day_ms 86_400_000
  # Fits the engine's 32-bit priorities with room to spare.
  @max_priority 1_000_000_000

  @milliseconds {:integer, 1, @day_ms}

  # Defines every option once: checks, defaults, types and documentation are all derived from here. `engine:
  # true` passes it to the engine, which has a field of the same name (native/handoff_core/src/config.rs).
  @schema [
    enabled: [
      type: :boolean,
      default: true,
      doc: "`false` switches handoff off: only DurableServer's own shutdown runs then",
      change: "to keep the other options in place while handoff is off, for example in one environment",
      example: {:code, "Application.get_env(:my_app, :handoff, true)"}
    ],
    timeout_ms: [
      type: @milliseconds,
      default: 30_000,
      doc: "the time that a drain may take. A shutdown never waits longer for it",
      change:
        "when `DurableHandoff.plan/2` estimates more than this, or when the platform kills the node earlier. See " <>
          "`shutdown_budget_ms`",
      example: 60_000
    ],
    max_concurrency: [
      engine: true,
      type: {:integer, 1, 10_000},
      default: 50,
      doc: "how many servers move at a time. At most this many are down at once because of the drain",
      change:
        "to a higher value when the report's `concurrency.highest` reaches it and the store serves more requests; to a " <>
          "lower one to spare the store",
      example: 200
    ],
    concurrency: [
      engine: true,
      type: {:one_of, [:adaptive, :fixed]},
      default: :adaptive,
      doc:
        "`:adaptive` measures the moves and uses the smallest concurrency that has the full throughput, or a higher one " <>
          "while a move takes less than 32 ms; `:fixed` always uses `max_concurrency`",
      change: "to compare with a plain task stream, or where the right number is known",
      example: :fixed
    ],
    max_concurrency_per_target: [
      engine: true,
      type: {:optional, {:integer, 1, 10_000}},
      default: nil,
      doc: "how many servers move to the same node at a time. `nil`: only `max_concurrency` limits it",
      change: "when starting a server costs a node much, such as a large `init`",
      example: 20
    ],
    max_per_second: [
      engine: true,
      type: {:optional, {:integer, 1, 10_000}},
      default: nil,
      doc: "how many servers begin to move in a second. `nil`: only `max_concurrency` limits it",
      change: "to spare the store, or what servers call in their `init`. A drain then takes that much longer",
      example: 100
    ],
    attempt_timeout_ms: [
      type: @milliseconds,
      default: 15_000,
      doc: "the time that one attempt to move a server may take, at most what is left of `timeout_ms`",
      change: "to a higher value when `terminate/2` or `init/1` of your servers takes several seconds",
      example: 25_000
    ],
    max_attempts: [
      engine: true,
      type: {:integer, 1, 100},
      default: 3,
      doc: "how often a drain tries to move one server. Failures of the store do not count",
      change: "to 1 when a server should stay after its first failure",
      example: 1
    ],
    max_consecutive_failures: [
      engine: true,
      type: {:integer, 1, 1_000_000},
      default: 10,
      doc:
        "the drain ends after this many failures in a row, and the graceful shutdown stops the rest. Attempts that fail " <>
          "together at one target are one failure. Failures of the store do not count. Servers that do not start " <>
          "elsewhere count for their module: only that module's other servers stay then",
      change: "to a higher value in large clusters, where many targets may fail one after the other",
      example: 30
    ],
    max_failure_ratio: [
      engine: true,
      type: {:number, 1},
      default: 0.5,
      doc: "the drain ends when more than this part of the latest 20 attempts failed",
      change: "to 1 to keep trying until the time is up",
      example: 1
    ],
    wait_for_target_ms: [
      type: {:optional, {:integer, 0, @day_ms}},
      default: nil,
      doc:
        "how long a drain that has no target waits for one. No running server is stopped meanwhile. `nil`: 5,000 while a " <>
          "node is known that was lost or is not connected, else 0",
      change:
        "when the only other node is one that starts while this one stops. It does not help where the platform starts it " <>
          "only when this one is gone. At most `timeout_ms`",
      example: 20_000
    ],
    reconnect: [
      type: :boolean,
      default: true,
      doc:
        "a drain connects to nodes that are healthy by their heartbeats in the store but not connected, and to nodes that " <>
          "disconnect from it, as cluster managers do when a pod terminates; `move/3` connects to the server's node",
      change: "where nodes that share a store must not be connected",
      example: false
    ],
    sticky: [
      engine: true,
      type: {:one_of, [:gated, :any_level, :ignore]},
      default: :gated,
      doc:
        "how DurableServer's sticky placement counts. `:gated`: as in DurableServer, a level is open when the delays of the " <>
          "levels before it are 0; `:any_level`: nodes of a better level are preferred, and every node that matches a level is " <>
          "accepted; `:ignore`: levels do not count",
      change: "when the report says `:sticky_locked` and a server in the wrong place is better than one that is down",
      example: :any_level
    ],
    prefer: [
      engine: true,
      type: {:one_of, [:new_release, :none]},
      default: :new_release,
      doc:
        "`:new_release`: nodes of a newer release come first, so that a rolling deploy moves a server once or twice; " <>
          "`:none`: only load counts",
      change: "for deploys where old and new nodes are to be loaded evenly all the time",
      example: :none
    ],
    generation: [
      type: {:optional, :string},
      default: nil,
      doc:
        "the name of this node's release, for `prefer`. `nil`: `RELEASE_VSN`, which releases set; without it, the version " <>
          "of the application that starts the supervisor",
      change: "when your deploys do not change the version, for example to the commit",
      example: {:code, ~S|System.fetch_env!("GIT_SHA")|}
    ],
    modules: [
      spec: quote(do: %{module() => boolean() | [priority: integer()]}),
      type: {:problems, &__MODULE__.module_problems/2},
      takes: "a map from modules to `true`, `false` or `[priority: integer]`",
      default: %{},
      doc:
        "`false`: servers of this module are never moved. A priority, 0 by default: servers of a higher one move first. See " <>
          "`DurableHandoff.Policy`",
      change: "to leave out what is not worth a move, and to put first what your users notice first",
      example: %{MyApp.Cache => false, MyApp.Room => [priority: 10]}
    ],
    eligible: [
      spec: quote(do: :all | :permanent | (map() -> boolean() | integer())),
      type: {:when, &__MODULE__.eligible?/1, ":all, :permanent or a function of one argument"},
      default: :all,
      doc:
        "which servers a drain moves. `:permanent`: only permanent ones, at the cost of one read of the store for each " <>
          "server. A function gets `%{key: key, module: module, meta: meta}` and returns `true`, `false` or a priority. See " <>
          "`DurableHandoff.Policy`",
      change: "when the choice depends on the key or on the `meta` of a server",
      example: {:code, ~S|fn server -> not String.starts_with?(server.key, "tmp/") end|}
    ],
    executor: [
      spec: quote(do: :auto | :embedded | {:node, node()}),
      type: {:when, &__MODULE__.executor?/1, ":auto, :embedded or {:node, name}"},
      default: :auto,
      doc:
        "what decides which server moves where and when. `:embedded`: the Rust engine in this VM. `{:node, name}`: the Rust " <>
          "node of that name; the engine in this VM, with a warning, when it has not announced itself. `:auto`: a Rust node " <>
          "when one has announced itself, else the engine in this VM",
      change: "to `:embedded` to keep Rust nodes out of this supervisor's drains",
      example: :embedded
    ],
    start_leftovers: [
      type: :boolean,
      default: true,
      doc:
        "when a drain cannot move some servers in time, it offers them to other nodes, which start them as soon as they " <>
          "are stopped here. This node also accepts such offers. `false`: neither",
      change: "when only DurableServer's own sweep should start servers",
      example: false
    ],
    quiet: [
      type: :boolean,
      default: true,
      doc:
        "while a drain runs, modules of DurableServer log only warnings and errors, and processes that move a server log " <>
          "nothing of DurableServer's",
      change: "to see DurableServer's own lines about each move",
      example: false
    ],
    rebalance: [
      spec: quote(do: boolean() | keyword()),
      type: {:problems, &Settings.problems/2},
      takes: "`true`, `false`, or options of their own: " <> Enum.map_join(Settings.names(), ", ", &"`#{&1}`"),
      default: false,
      doc:
        "whether this node moves what it carries above its share of all servers when a node has joined or a deploy has " <>
          "ended, as `DurableHandoff.rebalance/2` does on request",
      change: "to `true` on all nodes, if nodes join and stay, or if deploys reuse node names",
      example: [after_ms: 120_000, tolerance: 0.1]
    ],
    shutdown_budget_ms: [
      type: {:optional, @milliseconds},
      default: nil,
      doc:
        "how long the platform waits before it kills the node, counted from SIGTERM or `DurableHandoff.prepare_stop/0`. A " <>
          "drain in a shutdown takes at most what is left of it. A warning at start names a budget that is too small",
      change:
        "always in production: set it to the grace period of your platform, in Kubernetes less the `preStop` pause",
      example: 120_000
    ]
  ]

  @moduledoc """
  The options of `handoff_on_shutdown`.

      {DurableHandoff.Supervisor,
       name: MyApp.Durable, prefix: "myapp/", backend: backend,
       handoff_on_shutdown: [timeout_ms: 30_000, shutdown_budget_ms: 120_000]}

  `true` takes all defaults. `false`, `nil` or no option: no handoff. A wrong option raises `ArgumentError` at
  start. The message lists every problem, each with the option, its value and what is valid.

  Most of them can be given for one drain too: `DurableHandoff.drain(MyApp.Durable, timeout_ms: 60_000)`.

  ## Options

  #{Schema.docs(@schema)}

  ## Options of `rebalance`

  #{Settings.docs()}
  """

  defstruct Schema.defaults(@schema)

  @type t :: %__MODULE__{unquote_splicing(Schema.specs(@schema))}

  @doc false
  # The options that the engine takes as they are.
  @spec engine(t()) :: map()
  def engine(%__MODULE__{} = options), do: Map.take(options, for({name, entry} <- @schema, entry[:engine], do: name))

  @doc false
  def schema, do: @schema

  @doc """
  Checks the value of `handoff_on_shutdown`. Returns `:disabled` when handoff is off. Raises `ArgumentError`.

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
    case cast!(given, %__MODULE__{}, "handoff_on_shutdown") do
      %{enabled: false} -> :disabled
      options -> if Keyword.has_key?(given, :generation), do: options, else: %{options | generation: release_version()}
    end
  end

  @doc false
  # `options` with the `overrides` of one `DurableHandoff.drain/2` or `plan/2`, checked in the same way.
  # `flags` are further names that the function accepts.
  @spec override!(t(), term(), [atom()]) :: t()
  def override!(%__MODULE__{} = options, overrides, flags \\ []) do
    options = cast!(overrides, options, "options", flags)
    off = ":enabled got false: it switches handoff off for shutdowns, and only handoff_on_shutdown takes that"
    Schema.raise_on(if(options.enabled, do: [], else: [off]), "options")
    options
  end

  @doc false
  # Whether a drain with `options` may take longer than one with `other` because a limit of it is lower, or because it
  # waits longer for a target.
  @spec slower?(t(), t()) :: boolean()
  def slower?(%__MODULE__{} = options, %__MODULE__{} = other) do
    limits = [:max_concurrency, :max_concurrency_per_target, :max_per_second]
    # In the order of terms nil, no limit, is above every number.
    lower? = Enum.any?(limits, &(Map.get(options, &1) < Map.get(other, &1)))
    lower? or (options.wait_for_target_ms || 0) > (other.wait_for_target_ms || 0)
  end

  @doc false
  # The settings of a rebalance: the options of `rebalance` with the overrides of one
  # `DurableHandoff.rebalance/2`; and the options of the drain that carries it out.
  @spec rebalance(t(), term(), [atom()]) :: {t(), Settings.t()}
  def rebalance(%__MODULE__{} = options, overrides, flags \\ []) do
    settings = Settings.merge(options.rebalance, overrides, flags)
    of_the_drain = Keyword.take(settings, [:max_concurrency, :max_per_second, :timeout_ms])
    per_target = options.max_concurrency_per_target

    drain =
      struct!(options, [
        {:wait_for_target_ms, 0},
        {:max_concurrency_per_target, per_target && min(per_target, settings[:max_concurrency])} | of_the_drain
      ])

    {drain, settings |> Keyword.take([:after_ms, :tolerance, :min_servers]) |> Map.new()}
  end

  @doc false
  # Whether `value` can be a server's priority.
  @spec priority?(term()) :: boolean()
  def priority?(value), do: is_integer(value) and abs(value) <= @max_priority

  @doc false
  # Below all that users can give.
  @spec lowest_priority() :: integer()
  def lowest_priority, do: -@max_priority - 1

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

  defp cast!(given, base, what, others \\ []) do
    Schema.check!(@schema, given, what, others)
    options = struct!(base, given)
    Schema.raise_on(relations(options), what)
    options
  end

  # Checks of combinations of options that are each valid.
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
