defmodule DurableHandoff.Codec.Decoder do
  @moduledoc false
  # Decodes JSON without the NIF and without Elixir's JSON module: on Elixir before 1.18, for texts that the NIF
  # refuses, and for their errors.
  #
  # Guarantee: the terms and the error reasons of `JSON.decode/1`, with the same offsets. Only memory limits nesting.

  alias DurableHandoff.Codec.{DecodeError, UTF8}

  @doc "The term of `text`, or why it is not JSON."
  @spec decode(binary()) :: {:ok, term()} | {:error, DecodeError.reason()}
  def decode(text) when is_binary(text) do
    {value, rest} = value(text, text)
    if blank(rest) == "", do: {:ok, value}, else: {:error, {:invalid_byte, at(rest, text), :binary.first(rest)}}
  catch
    {__MODULE__, reason} -> {:error, reason}
  end

  @doc "The term of `text`; raises `DurableHandoff.Codec.DecodeError`."
  @spec decode!(binary()) :: term()
  def decode!(text) do
    with {:error, reason} <- decode(text), do: raise(DecodeError.from(reason, text)), else: ({:ok, term} -> term)
  end

  # Every function gets the remaining bytes and the whole text. It returns a value and the bytes after the
  # value.

  defp value(<<byte, rest::binary>>, text) when byte in ~c" \t\n\r", do: value(rest, text)
  defp value(<<?", rest::binary>>, text), do: string(rest, text)
  defp value(<<?[, rest::binary>>, text), do: array(blank(rest), text)
  defp value(<<?{, rest::binary>>, text), do: object(blank(rest), text)
  defp value(<<"true", rest::binary>>, _text), do: {true, rest}
  defp value(<<"false", rest::binary>>, _text), do: {false, rest}
  defp value(<<"null", rest::binary>>, _text), do: {nil, rest}
  defp value(<<?t, rest::binary>>, text), do: unexpected!(rest, text, 3)
  defp value(<<?f, rest::binary>>, text), do: unexpected!(rest, text, 4)
  defp value(<<?n, rest::binary>>, text), do: unexpected!(rest, text, 3)
  defp value(<<?-, rest::binary>> = start, text), do: number(rest, start, text)
  defp value(<<digit, _::binary>> = start, text) when digit in ?0..?9, do: number(start, start, text)
  defp value(rest, text), do: unexpected!(rest, text, 0)

  defp array(<<?], rest::binary>>, _text), do: {[], rest}

  defp array(rest, text) do
    {first, rest} = value(rest, text)
    elements(blank(rest), text, [first])
  end

  defp elements(<<?], rest::binary>>, _text, elements), do: {Enum.reverse(elements), rest}

  defp elements(<<?,, rest::binary>>, text, elements) do
    {element, rest} = value(rest, text)
    elements(blank(rest), text, [element | elements])
  end

  defp elements(rest, text, _elements), do: unexpected!(rest, text, 0)

  defp object(<<?}, rest::binary>>, _text), do: {%{}, rest}
  defp object(rest, text), do: pair(rest, text, [])

  defp pair(<<?", rest::binary>>, text, pairs) do
    {key, rest} = string(rest, text)

    case blank(rest) do
      <<?:, rest::binary>> ->
        {value, rest} = value(rest, text)
        pairs(blank(rest), text, [{key, value} | pairs])

      rest ->
        unexpected!(rest, text, 0)
    end
  end

  defp pair(rest, text, _pairs), do: unexpected!(rest, text, 0)

  # from_list/1 keeps the last pair of a key. The pairs are in reverse order, so the first one in the text
  # counts.
  defp pairs(<<?}, rest::binary>>, _text, pairs), do: {:maps.from_list(pairs), rest}
  defp pairs(<<?,, rest::binary>>, text, pairs), do: pair(blank(rest), text, pairs)
  defp pairs(rest, text, _pairs), do: unexpected!(rest, text, 0)

  # `start` is where the number starts, its sign included.
  defp number(<<?0, letter, rest::binary>>, start, text) when letter in ~c"eE", do: exponent(rest, "0", start, text)
  defp number(<<?0, rest::binary>>, start, text), do: integer(rest, start, text)
  defp number(<<digit, rest::binary>>, start, text) when digit in ?1..?9, do: integer(digits(rest), start, text)
  defp number(rest, _start, text), do: unexpected!(rest, text, 0)

  defp integer(<<?., rest::binary>>, start, text), do: fraction(some_digits(rest, text), start, text)

  defp integer(<<letter, rest::binary>> = behind, start, text) when letter in ~c"eE" do
    exponent(rest, taken(start, behind), start, text)
  end

  defp integer(rest, start, _text), do: {String.to_integer(taken(start, rest)), rest}

  defp fraction(<<letter, rest::binary>>, start, text) when letter in ~c"eE" do
    rest = rest |> sign() |> some_digits(text)
    float(taken(start, rest), rest, start, text)
  end

  defp fraction(rest, start, text), do: float(taken(start, rest), rest, start, text)

  # Erlang cannot parse a float without a fraction. As in Elixir's JSON, a zero loses its sign here.
  defp exponent(digits, integer, start, text) do
    rest = digits |> sign() |> some_digits(text)
    float(integer <> ".0e" <> taken(digits, rest), rest, start, text)
  end

  defp float(token, rest, start, text) do
    {:erlang.binary_to_float(token), rest}
  rescue
    ArgumentError -> throw({__MODULE__, {:unexpected_sequence, at(start, text), token}})
  end

  defp sign(<<sign, rest::binary>>) when sign in ~c"+-", do: rest
  defp sign(rest), do: rest

  defp some_digits(<<digit, rest::binary>>, _text) when digit in ?0..?9, do: digits(rest)
  defp some_digits(rest, text), do: unexpected!(rest, text, 0)

  defp digits(<<digit, rest::binary>>) when digit in ?0..?9, do: digits(rest)
  defp digits(rest), do: rest

  defp string(start, text) do
    case plain(start) do
      <<?", rest::binary>> = behind -> {taken(start, behind), rest}
      behind -> escapes(behind, text, [taken(start, behind)])
    end
  end

  # Returns the bytes before the first quote, escape or control character.
  defp plain(<<char::utf8, rest::binary>>) when char >= ?\s and char not in [?", ?\\], do: plain(rest)
  defp plain(rest), do: rest

  defp escapes(<<?", rest::binary>>, _text, parts), do: {parts |> Enum.reverse() |> IO.iodata_to_binary(), rest}

  defp escapes(<<?\\, rest::binary>> = start, text, parts) do
    {part, rest} = escape(rest, start, text)
    behind = plain(rest)
    escapes(behind, text, [taken(rest, behind), part | parts])
  end

  defp escapes(<<byte, _::binary>> = rest, text, _parts) when byte < ?\s, do: unexpected!(rest, text, 0)

  defp escapes(rest, text, _parts) do
    case UTF8.problem(rest, at(rest, text)) do
      {:invalid_byte, _offset, _byte} = reason -> throw({__MODULE__, reason})
      _ends_early -> throw({__MODULE__, {:unexpected_end, byte_size(text)}})
    end
  end

  defp escape(<<char, rest::binary>>, _start, _text) when char in [?", ?\\, ?/], do: {<<char>>, rest}
  defp escape(<<?n, rest::binary>>, _start, _text), do: {"\n", rest}
  defp escape(<<?t, rest::binary>>, _start, _text), do: {"\t", rest}
  defp escape(<<?r, rest::binary>>, _start, _text), do: {"\r", rest}
  defp escape(<<?b, rest::binary>>, _start, _text), do: {"\b", rest}
  defp escape(<<?f, rest::binary>>, _start, _text), do: {"\f", rest}

  defp escape(<<?u, digits::binary-size(4), rest::binary>>, start, text) do
    case unit(digits) do
      high when high in 0xD800..0xDBFF -> low(rest, high, start, text)
      low when low in 0xDC00..0xDFFF -> bad_sequence!(start, 6, text)
      nil -> bad_sequence!(start, 6, text)
      char -> {<<char::utf8>>, rest}
    end
  end

  defp escape(<<?u, rest::binary>>, _start, text), do: unexpected!(rest, text, 4)
  defp escape(rest, _start, text), do: unexpected!(rest, text, 0)

  defp low(<<"\\u", digits::binary-size(4), rest::binary>>, high, start, text) do
    case unit(digits) do
      low when low in 0xDC00..0xDFFF -> {<<0x10000 + (high - 0xD800) * 0x400 + low - 0xDC00::utf8>>, rest}
      _other -> bad_sequence!(start, 12, text)
    end
  end

  defp low(rest, _high, _start, text), do: unexpected!(rest, text, 5)

  defp unit(digits) do
    case Base.decode16(digits, case: :mixed) do
      {:ok, <<unit::16>>} -> unit
      :error -> nil
    end
  end

  defp blank(<<byte, rest::binary>>) when byte in ~c" \t\n\r", do: blank(rest)
  defp blank(rest), do: rest

  defp taken(start, rest), do: binary_part(start, 0, byte_size(start) - byte_size(rest))

  defp at(rest, text), do: byte_size(text) - byte_size(rest)

  @spec bad_sequence!(binary(), pos_integer(), binary()) :: no_return()
  defp bad_sequence!(start, size, text) do
    throw({__MODULE__, {:unexpected_sequence, at(start, text), binary_part(start, 0, size)}})
  end

  # A text that ends within `lookahead` bytes is incomplete; otherwise the next byte is wrong.
  @spec unexpected!(binary(), binary(), non_neg_integer()) :: no_return()
  defp unexpected!(rest, text, lookahead) do
    if byte_size(rest) <= lookahead do
      throw({__MODULE__, {:unexpected_end, byte_size(text)}})
    else
      throw({__MODULE__, {:invalid_byte, at(rest, text), :binary.first(rest)}})
    end
  end
end
