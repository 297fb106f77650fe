defmodule DurableHandoff.Client.Options do
  @moduledoc false
  # The options of one call, cast or await.
  #
  # Guarantee: what `read!/2` returns is valid; anything else raises `ArgumentError`, as options do everywhere
  # here. Reading good options costs a fraction of a microsecond: they come with every call.

  import DurableHandoff.Schema, only: [is_name: 1]

  alias DurableHandoff.Schema

  @day_ms 86_400_000

  defguardp is_time(value) when value == :infinity or (is_integer(value) and value >= 0 and value <= @day_ms)

  @schema [
    timeout: [
      type: {:when, &__MODULE__.timeout?/1, "milliseconds up to a day (#{@day_ms}), or :infinity"},
      default: 5_000,
      doc: "the time for the whole call in milliseconds: waiting, sending and the reply",
      example: 10_000
    ],
    retry: [
      type: {:one_of, [:unhandled, :never, :always]},
      default: :unhandled,
      doc: "when a request that was sent is sent again (`call/4` only)",
      change: "to `:always` for requests that may be handled twice, to `:never` for those that must not",
      example: :never
    ],
    start: [
      type: {:when, &__MODULE__.start?/1, "nil or {module, initial_state} with a map as initial state"},
      default: nil,
      doc: "`{Module, initial_state}`: start the server where it has no owner, as `ensure_started_child` does",
      example: {MyApp.Room, %{members: []}}
    ]
  ]

  @docs Schema.docs(@schema)

  defstruct Schema.defaults(@schema)

  @type t :: %__MODULE__{
          timeout: timeout(),
          retry: :unhandled | :never | :always,
          start: nil | {module(), map()}
        }
  @type operation :: :call | :cast | :await

  @doc "The options as a Markdown list."
  @spec docs() :: String.t()
  def docs, do: @docs

  @doc false
  def schema, do: @schema

  @doc """
  The options of one operation.

      iex> DurableHandoff.Client.Options.read!([timeout: 100], :call).timeout
      100
      iex> DurableHandoff.Client.Options.read!([retries: :never], :call)
      ** (ArgumentError) invalid options of call:
        * unknown option :retries, did you mean :retry?
  """
  @spec read!(keyword(), operation()) :: t()
  def read!(given, operation), do: read(given, %__MODULE__{}, given, operation)

  defp read([], options, _given, _operation), do: options

  defp read([{:timeout, value} | rest], options, given, operation) when is_time(value),
    do: read(rest, %{options | timeout: value}, given, operation)

  defp read([{:retry, value} | rest], options, given, :call) when value in [:unhandled, :never, :always],
    do: read(rest, %{options | retry: value}, given, :call)

  defp read([{:start, {module, %{}} = value} | rest], options, given, operation) when is_name(module),
    do: read(rest, %{options | start: value}, given, operation)

  defp read([{:start, nil} | rest], options, given, operation), do: read(rest, options, given, operation)

  # An integer or :infinity, which is how GenServer.call/3 takes its timeout.
  defp read(_problem, _options, given, operation) when is_integer(given) or given == :infinity do
    raise ArgumentError,
          "invalid options of #{operation}: got #{inspect(given)}, expected a keyword list, did you mean [timeout: #{inspect(given)}]?"
  end

  defp read(_problem, _options, given, operation) do
    schema = if operation == :call, do: @schema, else: Keyword.delete(@schema, :retry)
    :ok = Schema.check!(schema, given, "options of #{operation}")
    raise ArgumentError, "invalid options of #{operation}: got #{inspect(given)}"
  end

  @doc false
  def timeout?(value), do: is_time(value)

  @doc false
  def start?({module, %{}}), do: is_name(module)
  def start?(value), do: value == nil
end
