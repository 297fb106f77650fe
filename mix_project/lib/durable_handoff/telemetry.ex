defmodule DurableHandoff.Telemetry do
  @moduledoc """
  The events of this library, through `:telemetry` when it is loaded.

  Guarantee: without `:telemetry` nothing happens, and nothing is loaded or waited for.

  ### `[:durable_handoff, :drain, :start]`

  | measurement | |
  |---|---|
  | `system_time` | native time units |
  | `servers`, `excluded` | to be moved; left out by policy |

  Metadata: `supervisor`.

  ### `[:durable_handoff, :drain, :stop]`

  | measurement | |
  |---|---|
  | `duration` | native time units |
  | `total`, `moved`, `left`, `retried` | servers |

  Metadata: `supervisor`, `report` (`DurableHandoff.Report`).

  ### `[:durable_handoff, :attempt, :stop]`

  An attempt ended with an answer.

  | measurement | |
  |---|---|
  | `duration` | native time units |

  Metadata: `supervisor`, `key`, `module`, `target`, `attempt` (1 for the first), `outcome` (`{:moved, nil | node}`, `:retry_same`,
  `:stopping`, `{:displaced, blame}`, `:untouched`, `:gone`, `:lost_race`).

  ### `[:durable_handoff, :attempt, :exception]`

  The host raised, exited or threw, or the attempt's process died. As `:stop`, and in the metadata `kind` and `reason`.

  ### `[:durable_handoff, :fallback]`

  Something else than planned takes over.

  | measurement | |
  |---|---|
  | `count` | 1 |

  Metadata: `supervisor` and `reason`:

  | reason | what takes over |
  |---|---|
  | `:failures` | too many attempts failed: the existing shutdown stops the rest |
  | `{:drain_failed, reason}` | the drain could not run: the existing shutdown stops everything |
  | `:overdue` | the drain did not end within `timeout_ms`: the existing shutdown goes on without it |
  | `{:no_executor, node}` | the Rust node asked for is not there: the engine in this VM decides |
  """

  alias DurableHandoff.{Host, Report}

  @doc false
  @spec drain_start(Host.name(), non_neg_integer(), non_neg_integer()) :: :ok
  def drain_start(supervisor, servers, excluded) do
    measurements = %{system_time: System.system_time(), servers: servers, excluded: excluded}
    execute([:drain, :start], measurements, %{supervisor: supervisor})
  end

  @doc false
  @spec drain_stop(Report.t(), duration_us :: non_neg_integer()) :: :ok
  def drain_stop(report, duration_us) do
    measurements = %{
      duration: native(duration_us),
      total: report.total,
      moved: report.moved,
      left: report.total - report.moved,
      retried: report.retried
    }

    execute([:drain, :stop], measurements, %{supervisor: report.supervisor, report: report})
  end

  @doc false
  @spec attempt(Host.name(), Host.server(), DurableHandoff.Attempt.order(), DurableHandoff.Attempt.result()) :: :ok
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
  @spec fallback(Host.name(), term()) :: :ok
  def fallback(supervisor, reason), do: execute([:fallback], %{count: 1}, %{supervisor: supervisor, reason: reason})

  defp execute(event, measurements, metadata) do
    execute(:telemetry, [:durable_handoff | event], measurements, metadata)
  end

  # Asked each time, never loaded by us: in an application that uses telemetry it is loaded long before a drain. It is no
  # dependency of this library, so the compiler is not asked whether it exists.
  defp execute(telemetry, event, measurements, metadata) do
    if function_exported?(telemetry, :execute, 3), do: apply(telemetry, :execute, [event, measurements, metadata])
    :ok
  end

  defp native(microseconds), do: System.convert_time_unit(microseconds, :microsecond, :native)
end
