defmodule DurableHandoff.Log do
  @moduledoc """
  The log lines of this library.

  Each line has a text for people, and metadata for programs. The metadata stays the same when a text changes:

    * `durable_handoff`: the event, an atom of the list below;
    * `supervisor`: the name of the supervisor, except in lines about the whole VM;
    * the fields of the event.

  The guide "Troubleshooting" has the cause of each warning and error, and what to do.

  All lines come from this module, so `Logger.put_module_level(DurableHandoff.Log, :warning)` sets their
  level.

  ## Events

    * `:durable_server`, the version found at start: info; warning when it lacks functions. Fields:
      `version`.
    * `:application_not_started`: warning.
    * `:handoff_on`, `:budget_too_small`: info, warning.
    * `:mark_failed`: warning. Fields: `reason`.
    * `:cordoned`, `:uncordoned`: info.
    * `:moved`, `:not_moved` (`DurableHandoff.move/3`): info, warning. Fields: `key`, and `to`, or `reason` and
      `runs_on`.
    * `:rebalance_ended`: info; warning when less was moved than this node had above its share. Fields: `report`.
    * `:rebalance_failed`: warning. Fields: `reason`.
    * `:no_sigterm_handler`: warning. Fields: `reason`.
    * `:drain_cut`: warning. Fields: `timeout_ms`, `to_ms`, `budget_ms`, `passed_ms`, `graceful_ms`.
    * `:storing_progress`, `:states_stored`: info; warning when some could not be stored. Fields:
      `stored`, `unchanged`, `failed`.
    * `:policy_ignored`: warning. Fields: `servers`, and `key` and `problem` of the first.
    * `:drain_started`: info. Fields: `servers`, `excluded`, `targets` (nodes).
    * `:nodes_out_of_reach`, `:nodes_silent`: warning. Fields: `nodes`.
    * `:another_store`: warning. Fields: `nodes`.
    * `:estimate`: info; warning when it does not fit. Fields: `round_trip_ms`, `drain_ms`, `fit`
      (servers).
    * `:drain_progress`: info. Fields: `total`, `moved`, `left`, `in_flight`, `waits_for`.
    * `:view_refused`: warning. Fields: `reason`.
    * `:attempt_died`: error. Fields: `key`, `reason`.
    * `:reservation_left`: warning. Fields: `key`, `reason`.
    * `:drain_cancelled`: warning. Fields: `shutdown` (whether the node shuts down).
    * `:drain_ended`: info; warning when servers were left. Fields: `report`.
    * `:drain_failed`: error. Fields: `reason`, `shutdown` (whether the node shuts down).
    * `:unknown_answer`: warning. Fields: `function`, `answer`.
    * `:unexpected_message`: warning. Fields: `message`.
    * `:rust_node_announced`: info. Fields: `node`, `release`.
    * `:rust_node_withdrawn`: info. Fields: `node`.
    * `:rust_node_refused`: warning. Fields: `reason`.
    * `:rust_node_version`: warning. Fields: `node`, `version`.
    * `:no_executor`: warning. Fields: `node`.
    * `:executor_lost`: warning. Fields: `node`, `reason`.
    * `:operator_drain_failed`: error. Fields: `reason`.
    * `:leftovers_offered`: info; warning when servers found no node. Fields: `left`, `accepted`,
      `targets`.
    * `:leftovers_not_offered`: error. Fields: `reason`.
    * `:leftovers_taken_over`: info. Fields: `source`, `servers`.
    * `:leftovers_ended`: info; warning when servers were dropped. Fields: `source`, `total`, `started`,
      `running`, `forwarded`, `dropped`.
    * `:leftovers_poll_only`: warning. Fields: `reason`.
  """

  require Logger

  @type level :: :info | :warning | :error

  @doc false
  @spec info(atom(), atom(), String.t(), Enumerable.t()) :: :ok
  def info(event, supervisor, text, fields \\ []), do: write(:info, event, supervisor, text, fields)

  @doc false
  @spec warning(atom(), atom(), String.t(), Enumerable.t()) :: :ok
  def warning(event, supervisor, text, fields \\ []), do: write(:warning, event, supervisor, text, fields)

  @doc false
  @spec error(atom(), atom(), String.t(), Enumerable.t()) :: :ok
  def error(event, supervisor, text, fields \\ []), do: write(:error, event, supervisor, text, fields)

  @doc false
  # For a process of this library that gets a message that none of its clauses knows.
  @spec unexpected(atom(), term()) :: :ok
  def unexpected(supervisor, message) do
    text = "a process ignores an unexpected message: #{inspect(message, limit: 10, printable_limit: 200)}"
    write(:warning, :unexpected_message, supervisor, text, message: message)
  end

  @doc false
  # The format of times in all texts of this library: seconds with one decimal.
  @spec seconds(number()) :: String.t()
  def seconds(ms), do: "#{:erlang.float_to_binary(ms / 1_000, decimals: 1)} s"

  @doc false
  # The format of names of nodes in all texts of this library: at most ten, and how many more there are.
  @spec names([String.t()]) :: String.t()
  def names(names) do
    {shown, rest} = Enum.split(names, 10)
    Enum.join(shown, ", ") <> if(rest == [], do: "", else: " and #{length(rest)} more")
  end

  @doc false
  # `supervisor` is nil for a line about the whole VM.
  @spec write(level(), atom(), atom(), String.t(), Enumerable.t()) :: :ok
  def write(level, event, nil, text, fields),
    do: Logger.log(level, "[durable_handoff] #{text}", [{:durable_handoff, event} | Enum.to_list(fields)] ++ here())

  def write(level, event, supervisor, text, fields) do
    metadata = [{:durable_handoff, event}, {:supervisor, supervisor} | Enum.to_list(fields)] ++ here()
    Logger.log(level, "[durable_handoff] #{inspect(supervisor)}: #{text}", metadata)
  end

  # A process that another node has started, such as that of a move, has its group leader there. The handlers of OTP, and
  # of Elixir from 1.15 on, drop its lines.
  defp here, do: if(node(Process.group_leader()) == node(), do: [], else: [gl: Process.whereis(:user)])
end
