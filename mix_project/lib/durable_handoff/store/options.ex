defmodule DurableHandoff.Store.Options do
  alias DurableHandoff.Schema

  @hour_ms 3_600_000

  # The one place where an option exists: checks, defaults and documentation are all read from here.
  @schema [
    url: [
      type: {:problems, &__MODULE__.url_problems/2},
      default: nil,
      doc: "required: `s3://BUCKET/PATH`, `gs://BUCKET/PATH`, `az://CONTAINER/PATH`, `file:///DIR` or `memory:NAME`"
    ],
    config: [
      type: {:problems, &__MODULE__.config_problems/2},
      default: [],
      doc:
        "the provider's own options, see below; a keyword list, or a function that returns one so that secrets are in no " <>
          "child specification"
    ],
    timeout_ms: [
      type: {:integer, 1, @hour_ms},
      default: 30_000,
      doc: "a whole request, retries included, where the caller gives no `timeout:`"
    ],
    attempt_timeout_ms: [
      type: {:integer, 1, @hour_ms},
      default: 10_000,
      doc: "one sending of a request; one that hangs is sent again"
    ],
    max_retries: [
      type: {:integer, 0, 100},
      default: 3,
      doc: "how often a failed request is sent again, where the caller gives no `max_retries:`"
    ],
    max_in_flight: [type: {:integer, 1, 10_000}, default: 64, doc: "requests under way at a time"],
    max_waiting: [
      type: {:integer, 0, 1_000_000},
      default: 4_096,
      doc: "requests that wait for their turn; one more is `{:error, :overloaded}` at once"
    ],
    max_object_bytes: [
      type: {:integer, 1, 1_073_741_824},
      default: 67_108_864,
      doc: "the largest object that is read or written"
    ],
    page_size: [type: {:integer, 1, 1_000}, default: 1_000, doc: "objects in a page of a listing"],
    read_your_writes: [
      type: :boolean,
      default: true,
      doc: "answer the read after a move's final write from memory: three round trips a move instead of four"
    ],
    read_your_writes_bytes: [
      type: {:integer, 1, 1_073_741_824},
      default: 8_388_608,
      doc: "how much is kept for that"
    ],
    read_your_writes_ms: [type: {:integer, 1, 60_000}, default: 5_000, doc: "and for how long"],
    strings: [
      type: {:one_of, [:copy, :reference]},
      default: :copy,
      doc:
        "strings of more than 64 bytes in a state that was read: copies, or parts of the object, which then stays in memory " <>
          "as a whole for as long as one of them does"
    ],
    conditional_writes: [
      type: {:one_of, [:prove, :assume]},
      default: :prove,
      doc:
        "`:prove`: at the start the store proves that it keeps one owner for each key, see below; `:assume`: no proof, for " <>
          "credentials that cannot write at the start"
    ],
    discovery_interval_ms: [
      type: {:integer, 1, 24 * @hour_ms},
      default: 60_000,
      doc: "proposed to DurableServer: how often a node looks for servers without an owner"
    ],
    heartbeat_interval_ms: [
      type: {:integer, 1, @hour_ms},
      default: 10_000,
      doc: "proposed to DurableServer: how often a node writes its heartbeat"
    ],
    heartbeat_reconcile_interval_ms: [
      type: {:integer, 1, @hour_ms},
      default: 30_000,
      doc: "proposed to DurableServer: how often a node reads all heartbeats"
    ]
  ]

  @docs Schema.docs(@schema)
  @what "options of DurableHandoff.Store"

  @moduledoc """
  The options of `DurableHandoff.Store`.

  Guarantees:

    * Anything wrong raises `ArgumentError` with every problem at once, each naming the option and what it takes.
    * What was given as `url` or in `config` is in no message: it may be, or hold, a secret.

  #{@docs}
  """

  @type t :: %{atom() => term()}

  @doc "The options as a Markdown table, for other modules' documentation."
  @spec docs() :: String.t()
  def docs, do: @docs

  @doc """
  Checks the options and fills in defaults.

      iex> DurableHandoff.Store.Options.new!(url: "memory:").max_retries
      3
      iex> DurableHandoff.Store.Options.new!(url: "memory:", max_retry: 1)
      ** (ArgumentError) invalid options of DurableHandoff.Store:
        * unknown option :max_retry, did you mean :max_retries?
  """
  @spec new!(keyword()) :: t()
  def new!(given) do
    # Not left to the schema, which shows what it got.
    unless is_list(given) and Keyword.keyword?(given) do
      Schema.raise_on(["expected a keyword list such as [url: \"s3://bucket/path\"]"], @what)
    end

    Schema.check!(@schema, Keyword.put_new(given, :url, nil), @what)
    options = @schema |> Schema.defaults() |> Map.new() |> Map.merge(Map.new(given))
    %{options | config: config!(options.config)}
  end

  @doc false
  def url_problems(_name, value) when is_binary(value) and value != "", do: []
  def url_problems(name, nil), do: ["option #{name} is required, for example \"s3://bucket/path\""]
  def url_problems(name, _value), do: ["#{name} expects a string, for example \"s3://bucket/path\""]

  @doc false
  def config_problems(_name, value) when is_function(value, 0), do: []

  def config_problems(name, value) do
    if is_list(value) and Enum.all?(value, &setting?/1),
      do: [],
      else: [
        "#{name} expects a keyword list of strings, such as [region: \"eu-central-1\"], or a function that returns one"
      ]
  end

  defp config!(config) when is_function(config, 0) do
    config = config.()
    # A function that returns a function is a mistake, not a second chance.
    problems =
      if is_function(config),
        do: [":config: the function returned a function"],
        else: config_problems(":config", config)

    Schema.raise_on(problems, @what)
    config!(config)
  end

  defp config!(config), do: for({name, value} <- config, do: {to_string(name), to_string(value)})

  defp setting?({name, value}), do: is_atom(name) and (is_binary(value) or (is_atom(value) and value != nil))
  defp setting?(_other), do: false
end
