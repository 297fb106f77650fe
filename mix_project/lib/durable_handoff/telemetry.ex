defmodule DurableHandoff.Telemetry do
  @moduledoc """
  The events that this library sends through `:telemetry`, when that is loaded.

  Guarantee: without `:telemetry` no event is sent, nothing is loaded, and nothing is delayed.

  All times are in native units. `monotonic_time` and `deadline` are instants of `System.monotonic_time/0` on
  the node that drains. The guide "Metrics" has definitions for `Telemetry.Metrics`.

  ### `[:durable_handoff, :shutdown, :start]`

  A supervisor stops, and its Drainer drains.

  | measurement | |
  |---|---|
  | `monotonic_time` | when it began |
  | `deadline` | when the shutdown continues, even if the drain has not ended |

  Metadata: `supervisor`.

  ### `[:durable_handoff, :shutdown, :stop]`

  The shutdown continues. Also sent when the drain failed, ended too late, or did not begin.

  | measurement | |
  |---|---|
  | `monotonic_time` | when it ended |
  | `duration` | how long it delayed the shutdown |
  | `deadline` | as in `:start`. `monotonic_time` is at most 200 ms later |

  Metadata: `supervisor`.

  ### `[:durable_handoff, :drain, :start]`

  | measurement | |
  |---|---|
  | `system_time` | |
  | `monotonic_time` | when the drain began |
  | `deadline` | when it ends at the latest |
  | `servers`, `excluded` | to be moved; left out by policy |

  Metadata: `supervisor`.

  ### `[:durable_handoff, :drain, :stop]`

  | measurement | |
  |---|---|
  | `monotonic_time`, `duration` | when the drain ended, and how long it took |
  | `deadline` | as in `:start` |
  | `total`, `moved`, `retried` | servers |
  | `left` | servers that were to move and did not, without those that had ended by themselves (`:gone`) |
  | `excluded` | servers that stayed by policy |

  Metadata: `supervisor`, `report` (`DurableHandoff.Report`). Not sent if the process of the drain died.

  ### `[:durable_handoff, :move, :start]` and `[:durable_handoff, :move, :stop]`

  `DurableHandoff.move/3` moves a server of this node. Measurements and metadata are those of a drain, of one
  server.

  ### `[:durable_handoff, :rebalance, :start]` and `[:durable_handoff, :rebalance, :stop]`

  This node moves what it has above its share. Measurements and metadata are those of a drain; the report has
  `balance`. `left` has no servers that a rebalance keeps (`:kept`, `:moved_lately`).

  ### `[:durable_handoff, :mark]`

  This node was cordoned or uncordoned. A restart of DurableServer's supervisor uncordons it, too.

  | measurement | |
  |---|---|
  | `count` | 1 |

  Metadata: `supervisor`, `mark` (`:cordoned` or `:none`).

  ### `[:durable_handoff, :attempt, :stop]`

  An attempt to move a server ended, with or without success.

  | measurement | |
  |---|---|
  | `duration` | |

  Metadata: `supervisor`, `key`, `module`, `target`, `attempt` (1 for the first), `outcome`
  (`{:moved, nil | node}`, `:retry_same`, `:stopping`, `{:displaced, blame}`, `:untouched`,
  `{:untouched, blame}`, `:gone`, `:lost_race`, `:not_stored`, `:stop_failed`, `:not_storable`).
  `:retry_same`: the target's registry lags, which is no error. `:untouched`: the server still runs here;
  `:stopping`: it was told to stop and has not; `:displaced`: it is stopped and has no place yet. `blame` is what failed:
  `:target`, `:server`, `:store` or `:unknown`. `:not_stored`: its final write failed; `:stop_failed`: its `terminate/2`
  raised. The others are reasons of `DurableHandoff.Report`.

  ### `[:durable_handoff, :attempt, :exception]`

  DurableServer raised, exited or threw, or the process of the attempt died. Measurements and metadata are those
  of `:stop`, and `kind` and `reason`.

  ### `[:durable_handoff, :leftovers, :offer]`

  A drain has offered what it could not move to other nodes: at its end, and servers that it has stopped and given up
  also before.

  | measurement | |
  |---|---|
  | `left` | servers that were offered |
  | `accepted` | servers that other nodes accepted |

  Metadata: `supervisor`, `targets` (servers by node).

  ### `[:durable_handoff, :leftovers, :stop]`

  All servers of an offer that this node has accepted are settled. Servers that were offered again count in the later
  offer only.

  | measurement | |
  |---|---|
  | `duration` | since the offer came |
  | `started` | servers started here |
  | `running` | servers that another node had started first |
  | `forwarded` | servers that were passed on to another node |
  | `dropped` | servers given up |

  Metadata: `supervisor`, `source` (the node that drained), `dropped` (servers by reason: `:expired`,
  `:left_alone`, `:failed`, `:draining`).

  ### `[:durable_handoff, :fallback]`

  A part of the drain failed, and another takes over.

  | measurement | |
  |---|---|
  | `count` | 1 |

  Metadata: `supervisor` and `reason`:

  | reason | what takes over |
  |---|---|
  | `:failures` | too many attempts failed: the graceful shutdown stops the rest, if the node shuts down |
  | `{:drain_failed, reason}` | the drain could not run: the same |
  | `:overdue` | the drain did not end in its time: the same |
  | `{:no_executor, node}` | the Rust node of the option `executor` has not announced itself: the engine in this VM decides |
  | `{:executor_lost, node, reason}` | the Rust node refused, is gone or silent: the next Rust node decides, or the engine in this VM when moves have begun; a rebalance ends then (reasons: `DurableHandoff.Report`) |

  ### `[:durable_handoff, :wait, :stop]`

  A `DurableHandoff.call/4`, `cast/4` or `await/3` that had to wait for an owner has ended. A call that finds the
  owner at once sends no event.

  | measurement | |
  |---|---|
  | `duration` | from the beginning to the end, the answer included |
  | `waited` | the part of `duration` in which no owner was known |
  | `unanswered` | how many times the request was sent without being handled |

  Metadata: `supervisor`, `key`, `operation` (`:call`, `:cast`, `:await`), `result` (`:ok` or `:error`),
  `reason` (nil, or that of the error).
  """

  alias DurableHandoff.{Clock, Deadline, Host, Report}
  alias DurableHandoff.Leftovers.Adoption

  @typep kind :: :drain | :move | :rebalance

  @doc false
  @spec shutdown_start(Host.name(), Deadline.t()) :: :ok
  def shutdown_start(supervisor, deadline) do
    measurements = %{monotonic_time: instant(deadline.begin_us), deadline: instant(deadline.end_us)}
    execute([:shutdown, :start], measurements, %{supervisor: supervisor})
  end

  @doc false
  @spec shutdown_stop(Host.name(), Deadline.t(), ended_us :: non_neg_integer()) :: :ok
  def shutdown_stop(supervisor, deadline, ended_us),
    do: execute([:shutdown, :stop], ended(deadline, ended_us), %{supervisor: supervisor})

  @doc false
  @spec drain_start(kind(), Host.name(), Deadline.t(), non_neg_integer(), non_neg_integer()) :: :ok
  def drain_start(kind, supervisor, deadline, servers, excluded) do
    measurements = %{
      system_time: System.system_time(),
      monotonic_time: instant(deadline.begin_us),
      deadline: instant(deadline.end_us),
      servers: servers,
      excluded: excluded
    }

    execute([kind, :start], measurements, %{supervisor: supervisor})
  end

  @doc false
  @spec drain_stop(kind(), Report.t(), Deadline.t(), ended_us :: non_neg_integer()) :: :ok
  def drain_stop(kind, report, deadline, ended_us) do
    servers = %{
      total: report.total,
      moved: report.moved,
      left: Report.to_move(report) - report.moved,
      excluded: Map.get(report.left, :excluded, 0),
      retried: report.retried
    }

    measurements = Map.merge(ended(deadline, ended_us), servers)
    execute([kind, :stop], measurements, %{supervisor: report.supervisor, report: report})
  end

  @doc false
  @spec attempt(Host.name(), Host.server(), DurableHandoff.Drain.Attempt.order(), DurableHandoff.Drain.Attempt.result()) ::
          :ok
  def attempt(supervisor, server, order, result) do
    metadata = %{
      supervisor: supervisor,
      key: server.key,
      module: server.module,
      target: order.target,
      attempt: order.number,
      outcome: result.outcome
    }

    measurements = %{duration: native(result.latency_us)}

    case result.why do
      {:raised, kind, reason} ->
        execute([:attempt, :exception], measurements, Map.merge(metadata, %{kind: kind, reason: reason}))

      :died ->
        execute([:attempt, :exception], measurements, Map.merge(metadata, %{kind: :exit, reason: :died}))

      _answered ->
        execute([:attempt, :stop], measurements, metadata)
    end
  end

  @doc false
  @spec mark(Host.name(), Host.Mark.t()) :: :ok
  def mark(supervisor, mark), do: execute([:mark], %{count: 1}, %{supervisor: supervisor, mark: mark})

  @doc false
  @spec leftovers_offer(Host.name(), non_neg_integer(), %{String.t() => pos_integer()}) :: :ok
  def leftovers_offer(supervisor, left, targets) do
    measurements = %{left: left, accepted: targets |> Map.values() |> Enum.sum()}
    execute([:leftovers, :offer], measurements, %{supervisor: supervisor, targets: targets})
  end

  @doc false
  @spec leftovers_stop(Host.name(), Adoption.t(), duration_us :: non_neg_integer()) :: :ok
  def leftovers_stop(supervisor, adoption, duration_us) do
    measurements = %{
      duration: native(duration_us),
      started: adoption.started,
      running: adoption.running,
      forwarded: adoption.forwarded,
      dropped: adoption.dropped |> Map.values() |> Enum.sum()
    }

    metadata = %{supervisor: supervisor, source: adoption.source, dropped: adoption.dropped}
    execute([:leftovers, :stop], measurements, metadata)
  end

  @doc false
  @spec fallback(Host.name(), term()) :: :ok
  def fallback(supervisor, reason), do: execute([:fallback], %{count: 1}, %{supervisor: supervisor, reason: reason})

  @doc false
  @spec waited(call :: map(), duration_us :: non_neg_integer(), {:ok, term()} | {:error, term()}) :: :ok
  def waited(call, duration_us, result) do
    {result, reason} = with {:ok, _reply} <- result, do: {:ok, nil}
    measurements = %{duration: native(duration_us), waited: native(call.waited_us), unanswered: call.unanswered}
    metadata = %{supervisor: call.supervisor, key: call.key, operation: call.operation, result: result, reason: reason}
    execute([:wait, :stop], measurements, metadata)
  end

  # Asked each time, never loaded by us: in an application that uses telemetry it is loaded long before a
  # drain. It is not a dependency of this library, so it is called dynamically.
  defp execute(event, measurements, metadata) do
    arguments = [[:durable_handoff | event], measurements, metadata]
    if function_exported?(:telemetry, :execute, 3), do: apply(:telemetry, :execute, arguments)
    :ok
  end

  defp ended(deadline, ended_us) do
    %{
      monotonic_time: instant(ended_us),
      duration: native(ended_us - deadline.begin_us),
      deadline: instant(deadline.end_us)
    }
  end

  defp instant(us), do: Clock.monotonic_time(us)

  defp native(microseconds), do: System.convert_time_unit(microseconds, :microsecond, :native)
end
