defmodule DurableHandoff.CodecFuzzTest do
  @moduledoc false
  # Encodes and decodes random terms and texts with the codec and with its peer: Elixir's JSON, or this
  # library's fallback if there is none. Results and exceptions have to be equal. HANDOFF_FUZZ sets the number
  # of each (2,000), HANDOFF_SEED the seed (random; printed on failure, and before a run of another length).
  # The long run:
  #
  #     HANDOFF_FUZZ=1000000 mix test test/codec_fuzz_test.exs
  use ExUnit.Case, async: true

  alias DurableHandoff.Codec
  alias DurableHandoff.Codec.{Decoder, Encoder}

  @json? Code.ensure_loaded?(JSON)

  setup context do
    terms = "HANDOFF_FUZZ" |> System.get_env("2000") |> String.to_integer()
    seed = "HANDOFF_SEED" |> System.get_env(Integer.to_string(System.os_time())) |> String.to_integer()
    if terms != 2000, do: IO.puts("#{context.test}: #{terms}, seed #{seed}")
    :rand.seed(:exsss, seed)
    {:ok, terms: terms, seed: seed}
  end

  if @json? do
    defmodule Derived do
      @moduledoc false
      @derive JSON.Encoder
      defstruct [:a, :value]
    end

    defmodule Written do
      @moduledoc false
      defstruct [:value]

      defimpl JSON.Encoder do
        def encode(%{value: value}, encoder), do: ["[", encoder.(value, encoder), "]"]
      end
    end

    defp structure(value) do
      case :rand.uniform(3) do
        1 -> struct!(Derived, a: leaf(), value: value)
        2 -> struct!(Written, value: value)
        3 -> Duration.new!(day: :rand.uniform(100), second: -:rand.uniform(100), microsecond: {:rand.uniform(999), 3})
      end
    end
  else
    defp structure(value), do: [calendar(), value]
  end

  @tag timeout: :infinity
  test "random terms are encoded to the same bytes and read back as the same terms, or raise the same exception", %{
    seed: seed,
    terms: terms
  } do
    for n <- 1..terms do
      term = term(:rand.uniform(5))
      expected = outcome(fn -> peer_encode!(term) end)
      context = {"term", n, seed, term}

      same!(outcome(fn -> Codec.encode!(term) end), expected, context)
      if rem(n, 16) == 0, do: same!(outcome(fn -> Codec.encode!(term, size_hint: 200_000) end), expected, context)
      with {:ok, json} <- expected, do: same!(Codec.decode(json), peer_decode(json), context)
      plain = outcome(fn -> plainly(term) end)
      unless unknown_struct?(plain), do: same!(kind(plain), kind(expected), context)
    end
  end

  @tag timeout: :infinity
  test "random texts are decoded to the same terms or refused for the same reason", %{seed: seed, terms: terms} do
    for n <- 1..terms do
      text = text()
      expected = peer_decode(text)
      context = {"text", n, seed, text}

      same!(Codec.decode(text), expected, context)
      same!(Codec.decode(text, strings: :copy), expected, context)
      same!(Decoder.decode(text), expected, context)
    end
  end

  if @json? do
    defp peer_encode!(term), do: JSON.encode!(term)
    defp peer_decode(text), do: JSON.decode(text)
  else
    defp peer_encode!(term), do: plainly(term)
    defp peer_decode(text), do: Decoder.decode(text)
  end

  # Descriptions are made only on failure, because making them would take longer than the test.
  defp same!(same, same, _context), do: :ok

  defp same!(actual, expected, {what, n, seed, subject}) do
    assert actual === expected,
           "#{what} #{n} of seed #{seed}: #{inspect(subject, limit: :infinity, printable_limit: :infinity)}\n" <>
             "gave #{inspect(actual)}\ninstead of #{inspect(expected)}"
  end

  defp plainly(term), do: term |> Encoder.encode_to_iodata!() |> IO.iodata_to_binary()

  defp outcome(fun) do
    {:ok, fun.()}
  rescue
    error -> {:error, error}
  end

  # The fallback need not agree on which function had no clause or which protocol was not implemented.
  defp kind({:error, %Protocol.UndefinedError{protocol: String.Chars} = error}), do: error
  defp kind({:error, %Protocol.UndefinedError{value: value}}), do: {:no_form, value}
  defp kind({:error, %FunctionClauseError{}}), do: FunctionClauseError
  defp kind(outcome), do: outcome

  # Structs that only JSON.Encoder knows.
  defp unknown_struct?({:error, %Protocol.UndefinedError{value: %module{}}}),
    do: function_exported?(module, :__struct__, 0)

  defp unknown_struct?(_outcome), do: false

  defp term(0), do: leaf()

  defp term(depth) do
    case :rand.uniform(20) do
      kind when kind <= 6 -> leaf()
      kind when kind <= 12 -> list(:rand.uniform(6) - 1, fn -> term(depth - 1) end)
      kind when kind <= 17 -> Map.new(list(:rand.uniform(6) - 1, fn -> {key(), term(depth - 1)} end))
      18 -> structure(term(depth - 1))
      _ -> large(depth)
    end
  end

  defp leaf do
    case :rand.uniform(100) do
      kind when kind <= 40 -> string()
      kind when kind <= 60 -> integer()
      kind when kind <= 80 -> float()
      kind when kind <= 90 -> Enum.random([nil, true, false, :ok, :"", :é, :日本, :"a\"b", :undefined])
      kind when kind <= 97 -> calendar()
      98 -> Enum.random(["\xFF", "ok\xC3(", "\xED\xA0\x80", String.duplicate("x", 80) <> "\xE2\x82"])
      99 -> Enum.random([{1, 2}, self(), 1..2, <<1::3>>, %{__struct__: 1}, %{__struct__: NoSuchModule}])
      100 -> Enum.random([[1 | 2], ["\xFF" | :end], ~c"text", MapSet.new()])
    end
  end

  defp key do
    case :rand.uniform(20) do
      kind when kind <= 14 -> string()
      kind when kind <= 17 -> Enum.random([nil, true, :name, :at, :"a b", :é, :日本, :"\n"])
      18 -> integer()
      19 -> Enum.random([float(), ~c"charlist", calendar()])
      20 -> Enum.random(["\xFF", {1}, ~D[2026-01-02], [0xD800], ""])
    end
  end

  defp large(depth) do
    case :rand.uniform(8) do
      1 -> Map.new(1..(32 + :rand.uniform(40)), &{"k#{&1 * :rand.uniform(1000)}", leaf()})
      2 -> Map.new(1..(32 + :rand.uniform(40)), &{&1, leaf()})
      3 -> Enum.reduce(1..(120 + :rand.uniform(20)), term(0), fn _, inner -> [inner] end)
      4 -> String.duplicate(string(), 20)
      5 -> List.duplicate(term(depth - 1), 4)
      _ -> list(20, &leaf/0)
    end
  end

  defp string do
    case :rand.uniform(10) do
      kind when kind <= 4 -> characters(:rand.uniform(20) - 1, ?a..?z)
      kind when kind <= 6 -> characters(:rand.uniform(150) - 1, ?\s..?~)
      7 -> characters(:rand.uniform(40) - 1, 0..?\s)
      8 -> characters(:rand.uniform(60) - 1, 0x80..0x7FF)
      9 -> characters(:rand.uniform(100) - 1, 0x4E00..0x9FFF)
      10 -> characters(:rand.uniform(70) - 1, 0x10000..0x10FFFF) <> characters(:rand.uniform(40) - 1, 0..0x7F)
    end
  end

  defp characters(count, range), do: for(_ <- 1..count//1, into: "", do: <<Enum.random(range)::utf8>>)

  defp integer do
    size = Enum.random([1, 8, 16, 32, 59, 60, 63, 64, 65, 128, 700])
    :rand.uniform(Integer.pow(2, size)) - Integer.pow(2, size - 1)
  end

  defp float do
    case :rand.uniform(4) do
      1 -> float_of_bits()
      2 -> Float.round(:rand.uniform() * 1000, :rand.uniform(6) - 1)
      3 -> (:rand.uniform(2000) - 1000) * :math.pow(10, :rand.uniform(40) - 20)
      4 -> (:rand.uniform(20_000_000_000_000_000) - 10_000_000_000_000_000) * 1.0
    end
  end

  # Not every pattern of 64 bits is a float: infinities and NaN do not match.
  defp float_of_bits do
    case :rand.bytes(8) do
      <<float::float>> -> float
      _other -> float_of_bits()
    end
  end

  defp calendar do
    utc = DateTime.from_unix!(:rand.uniform(9_999_999_999), Enum.random([:second, :millisecond]))

    Enum.random([
      utc,
      DateTime.truncate(
        %{utc | microsecond: {:rand.uniform(1_000_000) - 1, 6}},
        Enum.random([:second, :millisecond, :microsecond])
      ),
      %{utc | utc_offset: 3600, time_zone: "Europe/Berlin", zone_abbr: "CET"},
      DateTime.to_naive(utc),
      DateTime.to_date(utc),
      DateTime.to_time(utc)
    ])
  end

  # The JSON text of a term with white space between its tokens. Half of the texts get an error.
  defp text do
    text = :rand.uniform(4) |> json_term() |> Encoder.encode_to_iodata!() |> IO.iodata_to_binary() |> dressed()
    if :rand.uniform(2) == 1, do: text, else: damaged(text, :rand.uniform(3))
  end

  defp json_term(0), do: Enum.random([string(), integer(), float(), nil, true, false])

  defp json_term(depth) do
    case :rand.uniform(8) do
      1 -> json_term(0)
      kind when kind <= 4 -> list(:rand.uniform(5) - 1, fn -> json_term(depth - 1) end)
      kind when kind <= 7 -> Map.new(list(:rand.uniform(5) - 1, fn -> {string(), json_term(depth - 1)} end))
      8 -> Enum.reduce(1..(120 + :rand.uniform(20)), json_term(0), fn _, inner -> [inner] end)
    end
  end

  # Adds white space around commas and brackets. Inside a string this changes the string, which does no harm.
  defp dressed(text) do
    case :rand.uniform(3) do
      1 -> String.replace(text, ~r/[\[\]{},:]/, &(blank() <> &1 <> blank()))
      _ -> blank() <> text <> blank()
    end
  end

  defp blank, do: Enum.random(["", "", "", " ", "\n\t", "\r\n  "])

  defp damaged(text, 0), do: text
  defp damaged("", _times), do: ""

  defp damaged(text, times) do
    at = :rand.uniform(byte_size(text)) - 1
    before = binary_part(text, 0, at)
    <<byte, behind::binary>> = binary_part(text, at, byte_size(text) - at)

    damaged =
      case :rand.uniform(6) do
        1 ->
          before

        2 ->
          before <> behind

        3 ->
          <<before::binary, :rand.uniform(256) - 1, behind::binary>>

        4 ->
          before <> Enum.random(~w([ ] { } , : " \\ - . e 0 9 \\u12 \\ud83d \\ude00 true nul \\x)) <> <<byte>> <> behind

        5 ->
          before <>
            Enum.random(["1e400", "-0", "-0e5", "01", "1.", "9223372036854775808", "\xC3", "\0", "\"a\":1,"]) <> behind

        6 ->
          before <> binary_part(text, at, min(byte_size(text) - at, :rand.uniform(20))) <> <<byte>> <> behind
      end

    damaged(damaged, times - 1)
  end

  defp list(count, fun), do: for(_ <- 1..count//1, do: fun.())
end
