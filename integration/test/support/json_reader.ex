defmodule JsonReader do
  @moduledoc """
  Reads the JSON of this project's golden files, on Elixir versions that have no JSON module. Not a general
  parser: it trusts its input. Objects become maps with string keys.
  """

  @doc """
      iex> JsonReader.read!(~S({"a": [1, -2.5e1, null, true, "x"], "b": {}}))
      %{"a" => [1, -25.0, nil, true, "x"], "b" => %{}}
  """
  @spec read!(binary()) :: term()
  def read!(text) do
    {value, rest} = value(space(text))
    "" = space(rest)
    value
  end

  defp value("{" <> rest), do: rest |> space() |> object([])
  defp value("[" <> rest), do: rest |> space() |> array([])
  defp value("\"" <> rest), do: string(rest, [])
  defp value("true" <> rest), do: {true, rest}
  defp value("false" <> rest), do: {false, rest}
  defp value("null" <> rest), do: {nil, rest}
  defp value(text), do: number(text)

  defp object("}" <> rest, pairs), do: {Map.new(pairs), rest}
  defp object("," <> rest, pairs), do: rest |> space() |> object(pairs)

  defp object("\"" <> rest, pairs) do
    {key, rest} = string(rest, [])
    ":" <> rest = space(rest)
    {value, rest} = rest |> space() |> value()
    rest |> space() |> object([{key, value} | pairs])
  end

  defp array("]" <> rest, items), do: {Enum.reverse(items), rest}
  defp array("," <> rest, items), do: rest |> space() |> array(items)

  defp array(text, items) do
    {item, rest} = value(text)
    rest |> space() |> array([item | items])
  end

  defp string("\"" <> rest, parts), do: {parts |> Enum.reverse() |> IO.iodata_to_binary(), rest}

  defp string("\\u" <> rest, parts),
    do: rest |> code_point() |> then(fn {char, rest} -> string(rest, [char | parts]) end)

  defp string(<<"\\", char, rest::binary>>, parts), do: string(rest, [unescape(char) | parts])
  defp string(<<char::utf8, rest::binary>>, parts), do: string(rest, [<<char::utf8>> | parts])

  defp unescape(?n), do: "\n"
  defp unescape(?t), do: "\t"
  defp unescape(?r), do: "\r"
  defp unescape(?b), do: "\b"
  defp unescape(?f), do: "\f"
  defp unescape(char), do: <<char>>

  defp code_point(<<high::binary-size(4), "\\u", low::binary-size(4), rest::binary>> = text) do
    case String.to_integer(high, 16) do
      lead when lead in 0xD800..0xDBFF ->
        {<<0x10000 + (lead - 0xD800) * 0x400 + String.to_integer(low, 16) - 0xDC00::utf8>>, rest}

      char ->
        <<_four::binary-size(4), rest::binary>> = text
        {<<char::utf8>>, rest}
    end
  end

  defp code_point(<<hex::binary-size(4), rest::binary>>), do: {<<String.to_integer(hex, 16)::utf8>>, rest}

  defp number(text) do
    [digits] = Regex.run(~r/^-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/, text)
    rest = binary_part(text, byte_size(digits), byte_size(text) - byte_size(digits))

    case Integer.parse(digits) do
      {integer, ""} -> {integer, rest}
      _fraction -> {digits |> Float.parse() |> elem(0), rest}
    end
  end

  defp space(<<char, rest::binary>>) when char in [?\s, ?\t, ?\r, ?\n], do: space(rest)
  defp space(text), do: text
end
