defmodule DurableHandoff.Client.Limits do
  @moduledoc false
  # How many callers may wait at a time: the options of `client:` of `DurableHandoff.Supervisor`.

  alias DurableHandoff.Schema

  @schema [
    max_waiting: [
      type: {:integer, 1, 10_000_000},
      default: 100_000,
      doc: "how many callers on this node wait at a time, for all servers",
      example: 20_000
    ],
    max_waiting_per_key: [
      type: {:integer, 1, 10_000_000},
      default: 10_000,
      doc: "how many callers on this node wait at a time for one server",
      example: 1_000
    ]
  ]

  @docs Schema.docs(@schema)

  defstruct Schema.defaults(@schema)

  @type t :: %__MODULE__{max_waiting: pos_integer(), max_waiting_per_key: pos_integer()}

  @doc "The options as a Markdown list."
  @spec docs() :: String.t()
  def docs, do: @docs

  @doc """
  Checks the value of `client`.

      iex> DurableHandoff.Client.Limits.new!(max_waiting: 10).max_waiting
      10
      iex> DurableHandoff.Client.Limits.new!(max_wating: 10)
      ** (ArgumentError) invalid client:
        * unknown option :max_wating, did you mean :max_waiting?
  """
  @spec new!(keyword()) :: t()
  def new!(given) do
    :ok = Schema.check!(@schema, given, "client")
    struct!(__MODULE__, given)
  end

  @doc "Whether one more caller may wait beside `waiting` others, `for_key` of which wait for the same server."
  @spec admit(t(), non_neg_integer(), non_neg_integer()) ::
          :ok | {:error, {:overloaded, %{limit: atom(), max: pos_integer()}}}
  def admit(%__MODULE__{max_waiting: max}, waiting, _for_key) when waiting >= max,
    do: {:error, {:overloaded, %{limit: :max_waiting, max: max}}}

  def admit(%__MODULE__{max_waiting_per_key: max}, _waiting, for_key) when for_key >= max,
    do: {:error, {:overloaded, %{limit: :max_waiting_per_key, max: max}}}

  def admit(%__MODULE__{}, _waiting, _for_key), do: :ok
end
