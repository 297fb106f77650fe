defmodule DurableHandoff.Report do
  @moduledoc """
  What a drain did.

  Guarantee: every server is counted exactly once: `total` is `moved` and the sum of `left`.

    * `left`: servers by the reason why they were not moved; only reasons that occurred. `:no_target`, `:sticky_locked`, `:capacity`,
      `:deadline`, `:failures`, `:cancelled`, `:excluded`, `:attempts_exhausted`, `:lost_race` or `:gone`;
    * `retried`: servers that took more than one attempt;
    * `gap_ms`: quantiles of the time in which a moved server answered nobody, as seen from here: from the start of the attempt
      that stopped it until it was moved. An upper bound;
    * `targets`: servers moved, by node;
    * `concurrency`: attempts in flight at the end, and the highest allowed at any time;
    * `ended`: `:done`, `:deadline`, `:failures` (too many; the existing shutdown took over) or `:cancelled`;
    * `first_errors`: the first few attempts that did not move their server, each with key, module, target and what happened.

  `to_string/1` gives one line for the log.
  """

  @enforce_keys [:supervisor, :total, :moved, :left, :retried, :gap_ms, :duration_ms, :targets, :concurrency]
  defstruct @enforce_keys ++ [attempts: 0, failures: 0, ended: :done, executor: :embedded, first_errors: []]

  @type reason ::
          :no_target
          | :sticky_locked
          | :capacity
          | :deadline
          | :failures
          | :cancelled
          | :excluded
          | :attempts_exhausted
          | :lost_race
          | :gone
  @type error :: %{key: term(), module: module(), target: String.t(), attempt: pos_integer(), error: String.t()}
  @type quantiles :: %{count: non_neg_integer(), p50: number(), p90: number(), p99: number(), max: number()}

  @type t :: %__MODULE__{
          supervisor: atom(),
          total: non_neg_integer(),
          moved: non_neg_integer(),
          left: %{reason() => pos_integer()},
          retried: non_neg_integer(),
          gap_ms: quantiles(),
          duration_ms: number(),
          targets: %{String.t() => pos_integer()},
          concurrency: %{last: non_neg_integer(), highest: non_neg_integer()},
          attempts: non_neg_integer(),
          failures: non_neg_integer(),
          ended: :done | :deadline | :failures | :cancelled,
          executor: :embedded | {:node, node()},
          first_errors: [error()]
        }

  @doc """
  The report of a drain from the engine's, which knows only the servers that policy let through.

  `about` says the rest: `supervisor`, `excluded` (a count), `duration_us` of the whole drain, `executor`, `first_errors`.
  """
  @spec new(map(), map()) :: t()
  def new(engine, about) do
    left = if about.excluded > 0, do: Map.put(engine.left, :excluded, about.excluded), else: engine.left

    %__MODULE__{
      supervisor: about.supervisor,
      total: engine.total + about.excluded,
      moved: engine.moved,
      left: Map.reject(left, fn {_reason, count} -> count == 0 end),
      retried: engine.retried,
      gap_ms: Map.new(engine.gap_us, fn {name, value} -> {name, if(name == :count, do: value, else: ms(value))} end),
      duration_ms: ms(about.duration_us),
      targets: for({name, count} <- engine.targets, count > 0, into: %{}, do: {name, count}),
      concurrency: engine.concurrency,
      attempts: engine.attempts,
      failures: engine.failures,
      ended: engine.ended,
      executor: about.executor,
      first_errors: about.first_errors
    }
  end

  defp ms(microseconds), do: Float.round(microseconds / 1_000, 3)

  defimpl String.Chars do
    def to_string(report) do
      [
        "moved #{report.moved} of #{report.total} in #{seconds(report.duration_ms)}",
        report.moved > 0 && " to #{counts(report.targets)}",
        report.gap_ms.count > 0 &&
          "; gap p50 #{round(report.gap_ms.p50)} ms, p99 #{round(report.gap_ms.p99)} ms, max #{round(report.gap_ms.max)} ms",
        report.moved > 0 && "; at most #{report.concurrency.highest} at a time",
        report.retried > 0 && "; retried #{report.retried}",
        report.left != %{} && "; left #{report.total - report.moved} (#{counts(report.left)})",
        report.ended != :done && "; ended early: #{report.ended}"
      ]
      |> Enum.filter(& &1)
      |> IO.iodata_to_binary()
    end

    defp counts(map), do: map |> Enum.sort() |> Enum.map_join(", ", fn {name, count} -> "#{name} #{count}" end)

    defp seconds(ms), do: "#{:erlang.float_to_binary(ms / 1_000, decimals: 1)} s"
  end
end
