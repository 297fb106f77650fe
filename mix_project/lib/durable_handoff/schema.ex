defmodule DurableHandoff.Schema do
  @moduledoc false
  # Options described once: a keyword list of `name: [type:, default:, doc:]` that checks, fills in and
  # documents itself. Only for the documentation: `change:`, when to change the default; `example:`, a value;
  # `takes:`, the values that are valid, where the type has no text; `required:`.
  #
  # Guarantee: `check!/4` reports every problem at once, each naming the option, what it got and what it
  # takes.
  #
  # Types: `:boolean`, `:string` (short), `{:integer, low, high}`, `{:number, high}` (above 0),
  # `{:one_of, values}`, `{:optional, type}` (nil too), `{:when, predicate, text}` (values for which `predicate`
  # is true; `text` describes them) and `{:problems, fun}`, where `fun.(name, value)` returns a list of sentences.

  @type option_type ::
          :boolean
          | :string
          | {:integer, integer(), integer()}
          | {:number, high :: integer()}
          | {:one_of, [term()]}
          | {:optional, option_type()}
          | {:when, (term() -> boolean()), String.t()}
          | {:problems, (String.t(), term() -> [String.t()])}
  @type entry :: [
          type: option_type(),
          default: term(),
          doc: String.t(),
          change: String.t(),
          example: term(),
          takes: String.t(),
          required: boolean()
        ]
  @type t :: [{atom(), entry()}]

  # The similarity of names from which one is suggested: it tolerates a swapped, missing or doubled letter.
  @similar 0.75

  # An atom has at most 255 characters, and other names are derived from a supervisor's name.
  @longest_name 200

  # Other nodes ignore a longer one (`DurableHandoff.Host.View`).
  @longest_string 255

  @doc "The options and the types of their values, for a typespec."
  @spec specs(t()) :: [{atom(), Macro.t()}]
  def specs(schema), do: for({name, entry} <- schema, do: {name, entry[:spec] || spec(entry[:type])})

  defp spec(:boolean), do: quote(do: boolean())
  defp spec(:string), do: quote(do: String.t())
  defp spec({:integer, low, _high}) when low > 0, do: quote(do: pos_integer())
  defp spec({:integer, _low, _high}), do: quote(do: integer())
  defp spec({:number, _high}), do: quote(do: number())
  defp spec({:one_of, values}), do: union(values)
  defp spec({:optional, type}), do: union([nil, spec(type)])

  @doc "The type of one of `types`."
  @spec union([Macro.t()]) :: Macro.t()
  def union(types), do: Enum.reduce(Enum.reverse(types), &quote(do: unquote(&1) | unquote(&2)))

  @doc "Whether a term can be the name of a module or of a registered process."
  defguard is_name(term) when is_atom(term) and term not in [nil, true, false]

  @doc """
  Returns `name`, the name of a supervisor. Raises `ArgumentError` when it cannot be one; `what` names the
  argument.
  """
  @spec supervisor_name!(term(), String.t()) :: atom()
  def supervisor_name!(name, what) when is_name(name) do
    if String.length(Atom.to_string(name)) > @longest_name do
      raise ArgumentError, "#{what} got a name of more than #{@longest_name} characters: no supervisor can have it"
    end

    name
  end

  def supervisor_name!(other, what) do
    hint =
      case other do
        pid when is_pid(pid) ->
          "; for the pid of a server use GenServer"

        {name, node} when is_name(name) and is_name(node) ->
          "; on another node ask by :erpc.call(#{inspect(node)}, ...)"

        _other ->
          ""
      end

    raise ArgumentError,
          "#{what} got #{inspect(other)}, expected the name of a DurableServer.Supervisor such as MyApp.Durable#{hint}"
  end

  @doc "Returns `key`, the key of a server. Raises `ArgumentError` when it is not a string: no server can have it."
  @spec server_key!(term(), String.t()) :: String.t()
  def server_key!(key, _what) when is_binary(key), do: key

  def server_key!(other, what) do
    hint = if is_pid(other), do: "; for the pid of a server use GenServer", else: ""
    raise ArgumentError, "#{what} got #{inspect(other)}, expected the key of a server, a string#{hint}"
  end

  @doc "Raises `ArgumentError` unless `given` is a keyword list. `what` got it, and takes `expected`."
  @spec keyword!(term(), String.t(), String.t()) :: :ok
  def keyword!(given, what, expected) do
    if Keyword.keyword?(given),
      do: :ok,
      else: raise(ArgumentError, "#{what} got #{inspect(given)}, expected #{expected}")
  end

  @doc "The options as a Markdown list."
  @spec docs(t()) :: String.t()
  def docs(schema), do: Enum.map_join(schema, "\n", fn {name, entry} -> item(name, entry) end)

  defp item(name, entry) do
    takes = entry[:takes] || entry[:type] |> expected() |> as_code()

    default =
      if entry[:default] == nil and entry[:required], do: "required", else: "default `#{value(entry[:default])}`"

    change = if entry[:change], do: " *Change it* #{entry[:change]}.", else: ""

    example =
      if Keyword.has_key?(entry, :example), do: " Example: `#{name}: #{example_text(entry[:example])}`", else: ""

    """
      * `#{name}`: #{digits(takes)}; #{default}.

        #{sentence(entry[:doc])}#{change}#{example}
    """
  end

  # Code that has to be shown as it is written, such as a function.
  defp example_text({:code, text}), do: text
  defp example_text(term), do: value(term)

  defp value(term), do: term |> inspect() |> digits()

  # Highlights the atoms in a text as code.
  defp as_code(text), do: Regex.replace(~r/\{:[^}]+\}|(?<!\w):[a-z_]+|\b(nil|true|false)\b/, text, "`\\0`")

  # 86400000 as 86_400_000.
  defp digits(text), do: Regex.replace(~r/\d(?=(\d{3})+\b)/, text, "\\0_")

  defp sentence(text), do: String.upcase(String.first(text)) <> String.slice(text, 1..-1//1) <> "."

  @doc "Every option with its default."
  @spec defaults(t()) :: keyword()
  def defaults(schema), do: for({name, entry} <- schema, do: {name, entry[:default]})

  @doc """
  Takes the flag `name` out of the options of a call. Raises `ArgumentError` when it is neither true nor false. What
  is not a keyword list is left to `check!/4`.
  """
  @spec flag!(term(), atom(), boolean()) :: {boolean(), term()}
  def flag!(given, name, default) do
    case Keyword.keyword?(given) && Keyword.pop(given, name, default) do
      false ->
        {default, given}

      {flag?, others} when is_boolean(flag?) ->
        {flag?, others}

      {other, _others} ->
        raise ArgumentError, "invalid options:\n  * #{inspect(name)} got #{inspect(other)}, expected true or false"
    end
  end

  @doc """
  Raises `ArgumentError` unless `given` is a keyword list of known options with values of their types. `others` are
  options that the caller has taken out of `given` already: an unknown one may be one of them, misspelt.
  """
  @spec check!(t(), term(), String.t(), [atom()]) :: :ok
  def check!(schema, given, what, others \\ []) do
    unless is_list(given) and Keyword.keyword?(given) do
      raise ArgumentError, "invalid #{what}: got #{inspect(given)}, expected a keyword list" <> instead(schema, given)
    end

    given
    |> Enum.flat_map(fn {name, value} ->
      case Keyword.fetch(schema, name) do
        {:ok, entry} -> problems(inspect(name), entry[:type], value)
        :error -> [unknown("option", name, others ++ Keyword.keys(schema))]
      end
    end)
    |> raise_on(what)
  end

  # Suggests what was meant, if that can be known: a single number is the value of the main option.
  defp instead(schema, given) do
    {name, entry} = main(schema)

    cond do
      alone?(entry[:type], given) ->
        ", did you mean #{inspect([{name, given}])}?"

      is_map(given) and not is_struct(given) and given != %{} and Enum.all?(Map.keys(given), &is_atom/1) ->
        ", did you mean #{inspect(Map.to_list(given))}?"

      true ->
        " such as " <> inspect([{name, if(entry[:default] == nil, do: entry[:example], else: entry[:default])}])
    end
  end

  # Whether a value that was given without its name can be that of this option.
  defp alone?({:optional, type}, given), do: given != nil and alone?(type, given)
  defp alone?({:problems, _fun}, _given), do: false
  defp alone?(type, given), do: valid?(type, given)

  # An option of this schema, not of another one: the first number, or else the first with a default.
  defp main(schema) do
    with_default = for {_name, entry} = option <- schema, entry[:default] != nil, do: option
    Enum.find(with_default, hd(with_default ++ schema), fn {_name, entry} -> match?({:integer, _, _}, entry[:type]) end)
  end

  @doc "Raises `ArgumentError` with all of `problems`, if there are any."
  @spec raise_on([String.t()], String.t()) :: :ok
  def raise_on([], _what), do: :ok

  def raise_on(problems, what) do
    raise ArgumentError, "invalid #{what}:\n" <> Enum.map_join(problems, "\n", &("  * " <> &1))
  end

  @doc "What is wrong with one value."
  @spec problems(String.t(), option_type(), term()) :: [String.t()]
  def problems(name, {:problems, fun}, value), do: fun.(name, value)

  def problems(name, type, value) do
    if valid?(type, value),
      do: [],
      else: ["#{name} got #{inspect(value)}, expected #{expected(type)}" <> hint(type, value)]
  end

  @doc "The sentence about a name that does not exist."
  @spec unknown(String.t(), atom(), [atom()]) :: String.t()
  def unknown(kind, name, known) do
    hint = with "" <- did_you_mean(name, known), do: ", expected one of " <> list(known)
    "unknown #{kind} #{inspect(name)}" <> hint
  end

  defp valid?(:boolean, value), do: is_boolean(value)

  defp valid?(:string, value),
    do: is_binary(value) and byte_size(value) in 1..@longest_string and String.valid?(value)

  defp valid?({:integer, low, high}, value), do: is_integer(value) and value >= low and value <= high
  defp valid?({:number, high}, value), do: is_number(value) and value > 0 and value <= high
  defp valid?({:one_of, values}, value), do: value in values
  defp valid?({:optional, type}, value), do: value == nil or valid?(type, value)
  defp valid?({:when, predicate, _text}, value), do: predicate.(value)

  defp expected(:boolean), do: "true or false"
  defp expected(:string), do: "a string of 1 to #{@longest_string} bytes"
  defp expected({:integer, 1, high}), do: "a positive integer up to #{high}"
  defp expected({:integer, low, high}), do: "an integer from #{low} to #{high}"
  defp expected({:number, high}), do: "a number above 0 and at most #{high}"
  defp expected({:one_of, values}), do: "one of " <> list(values)
  defp expected({:optional, type}), do: "nil or " <> expected(type)
  defp expected({:when, _predicate, text}), do: text

  defp hint({:one_of, values}, value), do: did_you_mean(value, values)
  defp hint(_type, _value), do: ""

  @doc "Whether one of two names may be the other, misspelt."
  @spec similar?(atom(), atom()) :: boolean()
  def similar?(a, b), do: similarity(a, b) > @similar

  @doc """
  The nearest of `choices` when `value` may be that one, misspelt; else nil. All are atoms, or all are strings.

      iex> DurableHandoff.Schema.nearest("app-1@host", ["app1@host", "db@host"])
      "app1@host"
      iex> DurableHandoff.Schema.nearest("x", [])
      nil
  """
  @spec nearest(choice, [choice]) :: choice | nil when choice: atom() | String.t()
  def nearest(value, choices) do
    nearest = Enum.max_by(choices, &similarity(&1, value), fn -> nil end)
    if nearest != nil and similarity(nearest, value) > @similar, do: nearest
  end

  defp did_you_mean(value, choices) when is_atom(value) and value != nil do
    with nearest when nearest != nil <- nearest(value, choices),
         do: ", did you mean #{inspect(nearest)}?",
         else: (nil -> "")
  end

  defp did_you_mean(_value, _choices), do: ""

  defp similarity(a, b), do: String.jaro_distance(to_string(a), to_string(b))

  defp list(values), do: Enum.map_join(values, ", ", &inspect/1)
end
