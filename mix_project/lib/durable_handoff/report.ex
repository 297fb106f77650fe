defmodule DurableHandoff.Report do
  @moduledoc """
  What a drain did.

      {:ok, report} = DurableHandoff.drain(MyApp.Durable)
      IO.puts(report)
      # moved 998 of 1000 in 3.1 s to app@b 499, app@c 499; gap p50 38 ms, ...; left 2 (not_storable 2)

  Guarantee: every server is counted exactly once: `total` is `moved` plus the sum of `left`.

  ## Fields

    * `total`, `moved`: servers that ran here when the drain began, and those that run on another node now;
    * `left`: servers that were not moved, by reason; only reasons that occurred. The guide "Troubleshooting" has
      the cause of each reason and what to do;
    * `adopted_later`: servers of `left` that other nodes have accepted. They start them once they are stopped here;
    * `stored`: what became of the servers' states before any server was moved: `stored`, `unchanged` (nothing to
      store) or `failed`;
    * `retried`: servers that needed more than one attempt; `attempts`, `failures`: attempts, and those that failed;
    * `gap_ms`: quantiles of the time in which a moved server was down: from the start of the attempt that stopped
      it until it was moved. An upper bound. `gap_us`: the same in microseconds;
    * `duration_ms`, `duration_us`: the time of the whole drain;
    * `targets`: servers moved, by node;
    * `concurrency`: how many attempts were allowed at a time at the end (`last`), and the most that were in flight
      (`highest`);
    * `ended`: `:done`, `:deadline` (the time was up), `:failures` (too many) or `:cancelled`;
    * `executor`: what decided at the end: `:embedded`, the engine in this VM, or `{:node, name}`, a Rust node;
    * `executors_lost`: Rust nodes that began to decide and did not until the end, in order, with the reason:
      `:silent` (no message for two seconds), `{:down, reason}`, `:noconnection`, `:congested` (nothing could be
      sent for two seconds), `{:refused, reason}`, `{:not_understood, what}`, `{:out_of_order, kind}` or
      `{:invalid_order, order}`;
    * `out_of_reach`: nodes that were healthy by their heartbeats in the store, but not connected, when the drain
      ended. Compare cookie, node names and `connect_all`;
    * `goal`: `:drain`, `:move` or `:rebalance`; `balance`, of a rebalance: `excess`, how many servers this node had
      above its share; `idle`, why it moved nothing, or nothing more; `before` and `after`, for each node its
      servers, and its share of all;
    * `first_errors`: the first few attempts that failed, each with key, module, target and error.
  """

  # The reasons of the engine (native/handoff_core/src/reason.rs), in its order.
  @reasons ~w(no_target sticky_locked capacity deadline failures excluded attempts_exhausted lost_race gone cancelled
              module_missing state_not_stored not_storable kept moved_lately)a

  # Why a rebalance moves nothing, or nothing more (native/handoff_core/src/balance.rs).
  @idles ~w(within_tolerance too_few_servers no_target node_draining deploy_in_progress unknown_release unknown_load
            coordinator_lost)a

  # How a drain ends (native/handoff_core/src/report.rs).
  @endings ~w(done deadline failures cancelled)a

  # The fields of the engine's own report that have the same value or the same unit here.
  @of_engine ~w(total moved left retried gap_us duration_us concurrency attempts failures ended)a

  @enforce_keys ~w(supervisor total moved left retried gap_us gap_ms duration_us duration_ms targets concurrency)a
  defstruct @enforce_keys ++
              [
                adopted_later: 0,
                attempts: 0,
                failures: 0,
                ended: :done,
                goal: :drain,
                balance: nil,
                executor: :embedded,
                executors_lost: [],
                out_of_reach: [],
                first_errors: [],
                stored: %{stored: 0, unchanged: 0, failed: 0}
              ]

  @typedoc "Why a server was not moved."
  @type reason :: unquote(DurableHandoff.Schema.union(@reasons))
  @type error :: %{key: term(), module: module(), target: String.t(), attempt: pos_integer(), error: String.t()}
  @type share :: %{name: String.t(), servers: non_neg_integer(), share: float()}
  @typedoc """
  Why a rebalance moved nothing, or nothing more. The guide "Cordon, move, rebalance" has the meaning of each.
  """
  @type idle :: unquote(DurableHandoff.Schema.union(@idles))
  @typedoc """
  What a rebalance found. `idle`: why it moved nothing, or nothing more. `share`: the number of servers that a
  node should have.
  """
  @type balance :: %{
          idle: nil | idle(),
          excess: non_neg_integer(),
          before: [share()],
          after: [share()]
        }
  @type quantiles :: %{count: non_neg_integer(), p50: number(), p90: number(), p99: number(), max: number()}

  @type t :: %__MODULE__{
          supervisor: atom(),
          total: non_neg_integer(),
          moved: non_neg_integer(),
          left: %{reason() => pos_integer()},
          adopted_later: non_neg_integer(),
          retried: non_neg_integer(),
          gap_us: quantiles(),
          gap_ms: quantiles(),
          duration_us: non_neg_integer(),
          duration_ms: number(),
          targets: %{String.t() => pos_integer()},
          concurrency: %{last: non_neg_integer(), highest: non_neg_integer()},
          attempts: non_neg_integer(),
          failures: non_neg_integer(),
          ended: unquote(DurableHandoff.Schema.union(@endings)),
          goal: :drain | :move | :rebalance,
          balance: nil | balance(),
          executor: :embedded | {:node, node()},
          executors_lost: [{node(), term()}],
          out_of_reach: [String.t()],
          first_errors: [error()],
          stored: %{stored: non_neg_integer(), unchanged: non_neg_integer(), failed: non_neg_integer()}
        }

  # By policy, in a rebalance as part of this node's share or as just arrived, and those that have ended by themselves.
  @not_to_move [:excluded, :kept, :moved_lately, :gone]

  @doc "How many servers of `total` were to move, without those that have ended by themselves."
  @spec to_move(t()) :: non_neg_integer()
  def to_move(%__MODULE__{} = report),
    do: report.total - (report.left |> Map.take(@not_to_move) |> Map.values() |> Enum.sum())

  @doc false
  # How many servers above its share the node has kept, without those that have ended by themselves: only servers that
  # began to move are found to have ended.
  @spec above_share(t()) :: integer()
  def above_share(%__MODULE__{balance: %{excess: excess}} = report),
    do: excess - report.moved - Map.get(report.left, :gone, 0)

  @doc "Every reason why a server may be left."
  @spec reasons() :: [reason()]
  def reasons, do: @reasons

  @doc false
  # Every reason why a rebalance moves nothing.
  @spec idles() :: [idle()]
  def idles, do: @idles

  @doc false
  # Every way in which a drain ends.
  @spec endings() :: [atom()]
  def endings, do: @endings

  @doc false
  # The report of a drain from the engine's, which has only the servers that the policy lets move. `about` has the
  # rest: `supervisor`, `excluded` (a count), `duration_us` of the whole drain, and those of the other fields that
  # differ from their defaults; `moved_lately` is a count too.
  @spec new(map(), map()) :: t()
  def new(engine, about) do
    {apart, fields} = Map.split(about, [:excluded, :moved_lately])
    left = engine.left |> Map.merge(apart) |> Map.reject(fn {_reason, count} -> count == 0 end)
    gap_ms = Map.new(engine.gap_us, fn {name, value} -> {name, if(name == :count, do: value, else: ms(value))} end)
    targets = for {name, count} <- engine.targets, count > 0, into: %{}, do: {name, count}
    total = engine.total + Enum.sum(Map.values(apart))
    counted = %{total: total, left: left, gap_ms: gap_ms, duration_ms: ms(about.duration_us), targets: targets}
    struct!(__MODULE__, engine |> Map.take([:balance | @of_engine]) |> Map.merge(fields) |> Map.merge(counted))
  end

  @doc false
  # The report in the engine's own terms, as operators get it from every kind of node.
  @spec to_engine(t()) :: map()
  def to_engine(%__MODULE__{} = report) do
    report
    |> Map.take(@of_engine)
    |> Map.put(:targets, Enum.sort(report.targets))
    |> Map.merge(if report.balance, do: %{balance: report.balance}, else: %{})
  end

  defp ms(microseconds), do: Float.round(microseconds / 1_000, 3)

  defimpl String.Chars do
    def to_string(%{goal: :rebalance, balance: %{} = balance} = report) do
      [
        "rebalance: moved #{report.moved} of #{balance.excess} above this node's share",
        report.moved > 0 && " in #{DurableHandoff.Log.seconds(report.duration_ms)} to #{counts(report.targets)}",
        DurableHandoff.Report.above_share(report) > 0 && could_not_move(Map.drop(report.left, [:kept, :gone])),
        balance.idle && "; idle: #{balance.idle}",
        report.moved > 0 && "; now " <> Enum.map_join(balance.after, ", ", &"#{&1.name} #{&1.servers}"),
        report.ended != :done && "; ended early: #{report.ended}",
        executor(report)
      ]
      |> Enum.filter(& &1)
      |> IO.iodata_to_binary()
    end

    def to_string(report) do
      [
        "moved #{report.moved} of #{report.total} in #{DurableHandoff.Log.seconds(report.duration_ms)}",
        report.moved > 0 && " to #{counts(report.targets)}",
        report.gap_ms.count > 0 &&
          "; gap p50 #{round(report.gap_ms.p50)} ms, p99 #{round(report.gap_ms.p99)} ms, max #{round(report.gap_ms.max)} ms",
        report.moved > 0 && "; at most #{report.concurrency.highest} at a time",
        report.retried > 0 && "; retried #{report.retried}",
        left(report.left),
        report.adopted_later > 0 && ", #{report.adopted_later} accepted by other nodes",
        stored(report.stored),
        report.ended != :done && "; ended early: #{report.ended}",
        report.out_of_reach != [] && "; " <> DurableHandoff.Drain.Peers.advice(report.out_of_reach),
        executor(report)
      ]
      |> Enum.filter(& &1)
      |> IO.iodata_to_binary()
    end

    defp left(left), do: left != %{} && "; left #{left |> Map.values() |> Enum.sum()} (#{counts(left)})"

    # These may be more than the servers above the share, any of which could have moved.
    defp could_not_move(left), do: left != %{} && "; could not move: #{counts(left)}"

    defp stored(%{stored: 0, failed: 0}), do: false
    defp stored(%{stored: stored, failed: 0}), do: "; #{stored} stored their state first"
    defp stored(%{stored: stored, failed: failed}), do: "; #{stored} stored their state first, #{failed} could not"

    defp executor(%{executor: {:node, name}}), do: "; coordinated by #{name}"

    defp executor(%{executors_lost: [_ | _] = lost} = report) do
      how = if report.balance && report.balance.idle == :coordinator_lost, do: "lost", else: "went on without"
      "; #{how} #{Enum.map_join(lost, ", ", fn {name, _reason} -> name end)}"
    end

    defp executor(_embedded), do: false

    defp counts(map), do: map |> Enum.sort() |> Enum.map_join(", ", fn {name, count} -> "#{name} #{count}" end)
  end
end
