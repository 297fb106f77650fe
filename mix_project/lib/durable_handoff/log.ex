defmodule DurableHandoff.Log do
  @moduledoc """
  The log lines of this library.

  Each line has a text for people, and metadata for programs, which stays the same when a text changes:

    * `durable_handoff`: the event, an atom of the table below;
    * `supervisor`: the supervisor it is about, where it is about one;
    * the fields of the event.

  All lines come from this module, so `Logger.put_module_level(DurableHandoff.Log, :warning)` sets their level.

  | event | level | fields |
  |---|---|---|
  | `:leftovers_offered` | info; warning when servers found no node | `left`, `accepted`, `targets` |
  | `:leftovers_not_offered` | error | `reason` |
  | `:leftovers_taken_over` | info | `source`, `servers` |
  | `:leftovers_ended` | info; warning when servers were dropped | `source`, `total`, `started`, `running`, `forwarded`, `dropped` |
  | `:leftovers_poll_only` | warning | `reason` |
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
  # `supervisor` is nil for a line about the whole VM.
  @spec write(level(), atom(), atom(), String.t(), Enumerable.t()) :: :ok
  def write(level, event, nil, text, fields),
    do: Logger.log(level, "[durable_handoff] #{text}", [{:durable_handoff, event} | Enum.to_list(fields)])

  def write(level, event, supervisor, text, fields) do
    metadata = [{:durable_handoff, event}, {:supervisor, supervisor} | Enum.to_list(fields)]
    Logger.log(level, "[durable_handoff] #{inspect(supervisor)}: #{text}", metadata)
  end
end
