defmodule HandoffBench.Leftovers.Figures do
  @moduledoc false
  # Turns the collected events into the figures that are printed.

  alias HandoffBench.Leftovers.Collector

  @doc """
  The gaps in milliseconds, sorted, of the servers that the drain left: those that stopped at `source` after
  it had ended, or, when the source was killed at `killed_us`, those that never stopped. A gap ends with the
  first start elsewhere.
  """
  @spec gaps([Collector.event()], node(), nil | integer()) :: [float()]
  def gaps(events, source, killed_us) do
    ended_us = Enum.find_value(events, fn {what, _key, _node, at} -> what == :ended && at end) || 0

    events
    |> Enum.reject(&match?({:ended, _key, _node, _at}, &1))
    |> Enum.group_by(&elem(&1, 1))
    |> Enum.flat_map(fn {_key, own} ->
      with down_us when is_integer(down_us) <- left(last_down(own, source), ended_us, killed_us),
           up_us when is_integer(up_us) <- first_up(own, source, down_us) do
        [(up_us - down_us) / 1_000]
      else
        nil -> []
      end
    end)
    |> Enum.sort()
  end

  @doc "A quantile of sorted numbers; 0.0 of none."
  @spec quantile([number()], float()) :: float()
  def quantile([], _share), do: 0.0
  def quantile(sorted, share), do: 1.0 * Enum.at(sorted, max(ceil(length(sorted) * share) - 1, 0))

  @doc "Prints the table."
  @spec print(map(), [{:with | :without, map()}]) :: :ok
  def print(options, runs) do
    IO.puts("""
    #{options.servers} servers, drain of #{options.timeout_ms} ms, store of #{options.slots} slots x #{options.latency_ms} ms#{what(options)},
    #{options.receivers} receivers, Elixir #{System.version()}, OTP #{System.otp_release()}

                               left   gap p50, ms   gap p99, ms       max   next sweep, s   wrong\
    """)

    for {name, run} <- runs do
      columns = [
        {length(run.gaps), 10},
        {round(quantile(run.gaps, 0.5)), 13},
        {round(quantile(run.gaps, 0.99)), 13},
        {round(quantile(run.gaps, 1.0)), 9},
        {round(run.next_sweep_ms / 1_000), 15},
        {run.wrong, 7}
      ]

      IO.puts(
        "  #{label(name)}" <>
          Enum.map_join(columns, " ", fn {value, width} -> String.pad_leading("#{value}", width) end)
      )
    end

    with {:ok, ratio} <- ratio(runs), do: IO.puts("\n  ratio of p99: #{:erlang.float_to_binary(ratio, decimals: 3)}")
    IO.puts("\n  wrong: servers without exactly one owner, or without what was synced")
  end

  @doc "The same, for `--json`."
  @spec json(map(), [{:with | :without, map()}]) :: map()
  def json(options, runs) do
    settings = [:servers, :timeout_ms, :slots, :latency_ms, :kill_target, :kill_source]
    sides = for {name, run} <- runs, into: %{}, do: {name, side(run)}
    ratio = with {:ok, ratio} <- ratio(runs), do: %{ratio_p99: ratio}, else: (:error -> %{})

    options |> Map.take(settings) |> Map.put(:fail_percent, options.fail) |> Map.merge(sides) |> Map.merge(ratio)
  end

  defp side(run) do
    %{
      left: length(run.gaps),
      gap_p50_ms: quantile(run.gaps, 0.5),
      gap_p99_ms: quantile(run.gaps, 0.99),
      gap_max_ms: quantile(run.gaps, 1.0),
      next_sweep_ms: run.next_sweep_ms,
      max_in_flight: run.stats.max_in_flight,
      wrong: run.wrong
    }
  end

  defp ratio(runs) do
    if Keyword.has_key?(runs, :with) and Keyword.has_key?(runs, :without),
      do: {:ok, quantile(runs[:with].gaps, 0.99) / max(quantile(runs[:without].gaps, 0.99), 0.001)},
      else: :error
  end

  defp label(:with), do: "start_leftovers   "
  defp label(:without), do: "without           "

  defp what(options) do
    [
      options.fail > 0 && ", #{options.fail} % of its requests fail",
      options.kill_target && ", a receiver killed meanwhile",
      options.kill_source && ", the source killed after its drain"
    ]
    |> Enum.filter(& &1)
    |> Enum.join()
  end

  defp left(nil, _ended_us, killed_us), do: killed_us
  defp left(down_us, ended_us, nil) when down_us >= ended_us, do: down_us
  defp left(_moved_by_the_drain, _ended_us, _killed_us), do: nil

  defp last_down(own, source) do
    own |> Enum.filter(&match?({:down, _key, ^source, _at}, &1)) |> Enum.map(&elem(&1, 3)) |> Enum.max(fn -> nil end)
  end

  defp first_up(own, source, down_us) do
    own
    |> Enum.filter(fn {what, _key, node, at} -> what == :up and node != source and at >= down_us end)
    |> Enum.map(&elem(&1, 3))
    |> Enum.min(fn -> nil end)
  end
end
