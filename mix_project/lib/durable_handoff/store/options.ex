defmodule DurableHandoff.Store.Options do
  alias DurableHandoff.Schema

  @hour_ms 3_600_000

  # Defines every option once: checks, defaults and documentation are all derived from here.
  @schema [
    url: [
      type: {:problems, &__MODULE__.url_problems/2},
      takes: "`s3://BUCKET/PATH`, `gs://BUCKET/PATH`, `az://CONTAINER/PATH`, `file:///DIR` or `memory:NAME`",
      required: true,
      default: nil,
      doc: "where the objects are",
      example: "s3://my-bucket/durable"
    ],
    config: [
      type: {:problems, &__MODULE__.config_problems/2},
      takes: "a keyword list, or a function that returns one",
      default: [],
      doc: "the provider's own options, see below. With a function, no secret is part of a child specification",
      example: {:code, ~S|[region: "eu-central-1"]|}
    ],
    timeout_ms: [
      type: {:integer, 1, @hour_ms},
      default: 30_000,
      doc: "the time for a request, retries included, where the caller gives no `timeout:`",
      example: 10_000
    ],
    attempt_timeout_ms: [
      type: {:integer, 1, @hour_ms},
      default: 10_000,
      doc: "the time for one try of a request. One that takes longer is cancelled and sent again",
      change: "to a lower value for a store nearby, so that a connection that hangs is noticed earlier",
      example: 2_000
    ],
    max_retries: [
      type: {:integer, 0, 100},
      default: 3,
      doc: "how often a failed request is sent again, where the caller gives no `max_retries:`",
      example: 5
    ],
    max_in_flight: [
      type: {:integer, 1, 10_000},
      default: 64,
      doc: "how many requests are in flight at a time. Up to eight more when these are for heartbeats",
      change: "to a higher value when `max_concurrency` of a drain is above it and the store can serve more",
      example: 256
    ],
    max_waiting: [
      type: {:integer, 0, 1_000_000},
      default: 4_096,
      doc: "how many requests may be queued. One more returns `{:error, :overloaded}` at once",
      example: 20_000
    ],
    max_object_bytes: [
      type: {:integer, 1, 1_073_741_824},
      default: 67_108_864,
      doc: "the largest object that is read or written",
      example: 1_048_576
    ],
    page_size: [
      type: {:integer, 1, 1_000},
      default: 1_000,
      doc: "how many objects a page of a listing has",
      example: 100
    ],
    read_your_writes: [
      type: :boolean,
      default: true,
      doc: "answer the read after a move's final write from memory: three round trips a move instead of four",
      example: false
    ],
    read_your_writes_bytes: [
      type: {:integer, 1, 1_073_741_824},
      default: 8_388_608,
      doc: "how many bytes of written objects `read_your_writes` keeps",
      change: "to a higher value when `max_concurrency` times the size of a state is more",
      example: 67_108_864
    ],
    read_your_writes_ms: [
      type: {:integer, 1, 60_000},
      default: 5_000,
      doc: "for how long `read_your_writes` keeps an object",
      example: 10_000
    ],
    strings: [
      type: {:one_of, [:copy, :reference]},
      default: :copy,
      doc:
        "how strings of more than 64 bytes in a state that was read are kept. `:copy`: each is copied. `:reference`: each " <>
          "refers to the object, which stays in memory as a whole for as long as one of them does",
      change: "to `:reference` when servers keep most of their state for as long as they run",
      example: :reference
    ],
    conditional_writes: [
      type: {:one_of, [:prove, :assume]},
      default: :prove,
      doc: "`:prove`: the store proves at start that it keeps one owner for each key, see below; `:assume`: no proof",
      change: "when the credentials cannot write yet at start",
      example: :assume
    ],
    discovery_interval_ms: [
      type: {:integer, 1, 24 * @hour_ms},
      default: 60_000,
      doc: "proposed to DurableServer: how often a node looks for servers without an owner",
      example: 30_000
    ],
    heartbeat_interval_ms: [
      type: {:integer, 1, @hour_ms},
      default: 10_000,
      doc: "proposed to DurableServer: how often a node writes its heartbeat and reads those of all nodes",
      example: 5_000
    ]
  ]

  @docs Schema.docs(@schema)
  @what "options of DurableHandoff.Store"

  @moduledoc false
  # The options of `DurableHandoff.Store`.
  #
  # Guarantees:
  #
  #   * Anything wrong raises `ArgumentError` with every problem at once, each naming the option and what it
  #     takes.
  #   * What was given as `url` or in `config` is in no message: it may be, or hold, a secret.

  @type t :: %{atom() => term()}

  @doc "The options as a Markdown list, for other modules' documentation."
  @spec docs() :: String.t()
  def docs, do: @docs

  @doc false
  def schema, do: @schema

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
    # This check is not left to the schema, whose error would show the value.
    unless is_list(given) and Keyword.keyword?(given) do
      Schema.raise_on(["expected a keyword list such as [url: \"s3://bucket/path\"]"], @what)
    end

    Schema.check!(@schema, Keyword.put_new(given, :url, nil), @what)
    options = @schema |> Schema.defaults() |> Map.new() |> Map.merge(Map.new(given))
    %{options | config: config!(options.config)}
  end

  @doc false
  def url_problems(name, nil), do: ["option #{name} is required, for example \"s3://bucket/path\""]

  def url_problems(name, value) do
    if text?(value) and value != "",
      do: [],
      else: ["#{name} expects a string in UTF-8, for example \"s3://bucket/path\""]
  end

  @doc false
  def config_problems(_name, value) when is_function(value, 0), do: []

  def config_problems(name, value) do
    if is_list(value) and Enum.all?(value, &setting?/1),
      do: [],
      else: [
        "#{name} expects a keyword list of strings in UTF-8, such as [region: \"eu-central-1\"], or a function that returns one"
      ]
  end

  defp config!(config) when is_function(config, 0) do
    config = config.()
    # A function that returns another function is an error; it is not called again.
    problems =
      if is_function(config),
        do: [":config: the function returned a function"],
        else: config_problems(":config", config)

    Schema.raise_on(problems, @what)
    config!(config)
  end

  defp config!(config), do: for({name, value} <- config, do: {to_string(name), to_string(value)})

  defp setting?({name, value}), do: is_atom(name) and (text?(value) or (is_atom(value) and value != nil))
  defp setting?(_other), do: false

  defp text?(value), do: is_binary(value) and String.valid?(value)
end
