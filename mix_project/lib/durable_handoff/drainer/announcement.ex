defmodule DurableHandoff.Drainer.Announcement do
  @moduledoc false
  # Log lines and events about the end of a drain or a rebalance.

  alias DurableHandoff.{Drain, Host, Log, Report, Telemetry}

  @doc "A drain was cancelled. `stopping?`: in a shutdown."
  @spec cancelled(Host.name(), boolean()) :: :ok
  def cancelled(supervisor, stopping?) do
    rest =
      if stopping?,
        do: "the graceful shutdown stops the rest",
        else:
          "servers that have not moved go on running here, and this node stays cordoned: uncordon/1 lets it take servers again"

    text = "the drain is cancelled: it ends when the moves in flight have settled; " <> rest
    Log.warning(:drain_cancelled, supervisor, text, shutdown: stopping?)
  end

  @doc "A rebalance has ended."
  @spec rebalanced(Host.name(), Drain.result() | {:error, term()}) :: :ok | nil
  def rebalanced(supervisor, {:ok, %{balance: balance} = report}) do
    level = if balance == nil or Report.above_share(report) <= 0, do: :info, else: :warning
    # Most rebalances have nothing to do, so these are not logged.
    if level == :warning or report.moved > 0,
      do: Log.write(level, :rebalance_ended, supervisor, to_string(report), report: report)
  end

  def rebalanced(supervisor, {:error, reason}) do
    text = "the rebalance did not end as it should: #{shown(reason)}"
    Log.warning(:rebalance_failed, supervisor, text, reason: reason)
  end

  @doc "A drain has ended. `stopping?`: what it has not moved is left to the graceful shutdown."
  @spec ended(Host.name(), Drain.result() | {:error, term()}, boolean()) :: :ok
  def ended(supervisor, {:ok, report}, _stopping?) do
    level = if report.moved == Report.to_move(report), do: :info, else: :warning
    Log.write(level, :drain_ended, supervisor, to_string(report), report: report)
    if report.ended == :failures, do: Telemetry.fallback(supervisor, :failures)
    :ok
  end

  def ended(supervisor, {:error, reason}, stopping?) do
    rest = if stopping?, do: "the graceful shutdown begins", else: "servers that have not moved go on running here"
    text = "the drain failed, #{rest}: #{shown(reason)}"
    Log.error(:drain_failed, supervisor, text, reason: reason, shutdown: stopping?)
    Telemetry.fallback(supervisor, fallback(reason))
  end

  defp fallback(:overdue), do: :overdue
  defp fallback({:drain_failed, _reason} = crashed), do: crashed
  defp fallback(reason), do: {:drain_failed, reason}

  defp shown(reason), do: inspect(reason, limit: 20, printable_limit: 1_000)
end
