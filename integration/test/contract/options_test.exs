defmodule Contract.OptionsTest do
  @moduledoc "Options that a supervisor refuses, and in which order it starts."

  use ClusterCase, nodes: 1

  test "refused: unknown options, intervals that are too long, wrong values", %{a: a} = context do
    for {row, more} <- [
          {"unknown", [no_such_option: true]},
          {"handoff_on_shutdown", [handoff_on_shutdown: true]},
          {"heartbeat_interval_ms more than half of the threshold", [heartbeat_interval_ms: 15_001]},
          {"heartbeat_interval_ms more than half of a threshold given",
           [heartbeat_interval_ms: 2_001, heartbeat_staleness_threshold_ms: 4_000]},
          {"max_children: 0", [max_children: 0]},
          {"max_children: -1", [max_children: -1]}
        ] do
      record(context, "refused: #{row}", refusal(start_children(a, [{Host, context.opts ++ more}])))
    end
  end

  test "accepted: an interval of half of the threshold", %{a: a} = context do
    more = [heartbeat_interval_ms: 2_000, heartbeat_staleness_threshold_ms: 4_000]
    assert {:ok, _app} = start_host(a, context.opts ++ more)
    config = call(a, Host, :__get_config__, [context.sup])
    record(context, "accepted: intervals", Map.take(config, Keyword.keys(more)))
  end

  test "the default values of the configuration", %{a: a} = context do
    {:ok, _app} = start_host(a, context.opts)

    keys = ~w(prefix restart_start_timeout_ms graceful_shutdown_timeout_ms graceful_shutdown_total_timeout_ms
              heartbeat_future_skew_tolerance_ms heartbeat_staleness_threshold_ms)a

    record(context, "config: defaults", Map.take(call(a, Host, :__get_config__, [context.sup]), keys))
  end

  test "heartbeat_meta is called before the supervisor answers, and again when it does", %{a: a} = context do
    EarlyMeta.watch(a, context.sup)
    {:ok, _app} = start_host(a, context.opts ++ [heartbeat_meta: &EarlyMeta.ask/0, heartbeat_interval_ms: 20])
    wait_until(fn -> length(EarlyMeta.asked(a)) > 2 end)
    [first, second, third | _more] = EarlyMeta.asked(a)
    record(context, "heartbeat_meta asks for node_ref: the first times", [kind(first), kind(second), kind(third)])
  end

  defp kind({kind, %module{}}), do: {kind, module}
  defp kind({kind, value}) when is_integer(value), do: {kind, :node_ref}
  defp kind(other), do: other

  # The exception inside a supervisor's error about a child that did not start.
  defp refusal({:ok, app}), do: {:accepted, app != nil}
  defp refusal({:error, reason}), do: {:refused, exception(reason)}

  defp exception(%module{__exception__: true}), do: module
  defp exception(tuple) when is_tuple(tuple), do: tuple |> Tuple.to_list() |> Enum.find_value(&exception/1)
  defp exception(_other), do: nil
end
