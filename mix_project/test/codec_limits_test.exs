defmodule DurableHandoff.CodecLimitsTest do
  use ExUnit.Case, async: true

  import DurableHandoff.CodecHelpers

  alias DurableHandoff.{Codec, Native}
  alias DurableHandoff.Codec.Decoder

  @long 200_000

  describe "long states" do
    test "have the same result on every kind of scheduler" do
      for term <- [
            Enum.to_list(1..100_000),
            Map.new(1..20_000, &{"key_#{&1}", [&1, &1 / 7]}),
            [String.duplicate("long \"text\" é\n", 50_000)],
            for(i <- 1..5_000, do: %{id: i, at: ~D[2026-01-02], text: "message #{i}"}),
            List.duplicate(~D[2026-01-02], 11_000)
          ] do
        json = encode_plainly(term)
        assert byte_size(json) > 128 * 1024
        assert Codec.encode!(term) == json
        assert Codec.encode!(term, size_hint: byte_size(json)) == json
        assert Codec.encode!(term, size_hint: 1) == json
        assert Codec.encode!(term, size_hint: 1_000_000_000_000) == json
        assert {:ok, decoded} = Decoder.decode(json)
        assert Codec.decode!(json) === decoded
        assert Codec.decode!(json, strings: :copy) === decoded
      end
    end

    test "strings with escapes are the same with shared and copied memory, also after others are freed" do
      strings = for size <- 1..600, do: String.duplicate("é\n\"#{size}\\", size)
      json = encode_plainly([strings, strings])
      [first, second] = Codec.decode!(json)
      assert first == strings and second == strings
      assert Codec.decode!(json, strings: :copy) == [strings, strings]
      kept = Enum.take_every(second, 50)
      :erlang.garbage_collect()
      Codec.decode!(json)
      assert kept == Enum.take_every(strings, 50)
    end

    test "a string keeps a bounded part of the text in memory; a copied one keeps only itself" do
      [string | _] = Codec.decode!(encode_plainly(List.duplicate(String.duplicate("a\n", 200), 1_000)), strings: :copy)
      assert :binary.referenced_byte_size(string) == byte_size(string)
      [_ | _] = strings = Codec.decode!(encode_plainly(List.duplicate(String.duplicate("a\n", 200), 1_000)))
      assert Enum.all?(strings, &(:binary.referenced_byte_size(&1) <= 64 * 1024))
    end

    test "sibling lists are written, no matter which of them is long" do
      for {one, other} <- [{[1], 70_000}, {20_000, 30_000}, {60_000, 60_000}, {70_000, [1, 2]}] do
        term = %{"a" => numbers(one), "b" => %{"c" => numbers(other)}, "d" => numbers(other), "e" => [1 | numbers(one)]}
        assert Codec.encode!(term) == encode_plainly(term)
      end

      assert_raise FunctionClauseError, fn -> Codec.encode!(%{"a" => numbers(20_000), "b" => [1, 2 | 3]}) end
    end

    test "a map of any size is written in its iteration order" do
      for size <- [1, 31, 32, 33, 100, 5_000] do
        map = Map.new(1..size, &{"key #{&1 * 7919}", &1})
        assert Codec.encode!(map) == encode_plainly(map)
      end
    end
  end

  describe "hostile input" do
    test "nesting of any depth is read and written" do
      for {open, close} <- [{"[", "]"}, {~S({"a":), "}"}], depth <- [127, 128, 129, @long] do
        text = String.duplicate(open, depth) <> "1" <> String.duplicate(close, depth)
        term = Codec.decode!(text)
        assert depth(term) == depth
        assert Codec.encode!(term) == text
      end
    end

    test "unclosed brackets are refused" do
      for open <- ["[", ~S({"a":), ~S([{"a":[)] do
        assert {:error, {:unexpected_end, _}} = Codec.decode(String.duplicate(open, @long))
      end
    end

    test "a text that is cut off anywhere is refused" do
      text = Codec.encode!(%{"a" => [1, -2.5e-7, "x\n\u{1F600}é", nil, true, false, %{"b" => []}]})
      for size <- 0..(byte_size(text) - 1), do: assert({:error, _} = Codec.decode(binary_part(text, 0, size)))
    end

    test "a text with any byte replaced by any other gives a term or an error" do
      text = ~S({"a":[1,-2.5e-7,"x\n\ud83d\ude00é",null,true,{"b":[]}]})

      for at <- 0..(byte_size(text) - 1),
          byte <- [0, 9, 10, ?", ?\\, ?[, ?], ?{, ?}, ?,, ?:, ?-, ?0, ?9, ?e, ?., ?u, 0x7F, 0x80, 0xC3, 0xFF] do
        behind = binary_part(text, at + 1, byte_size(text) - at - 1)
        broken = binary_part(text, 0, at) <> <<byte>> <> behind
        assert Codec.decode(broken) == Decoder.decode(broken)
      end
    end

    test "very long exponents and digits are numbers or errors" do
      nines = String.duplicate("9", 20_000)
      assert {:error, {:unexpected_sequence, 0, _}} = Codec.decode("1e#{nines}")
      assert Codec.decode!("1e-#{nines}") === 0.0
      assert Codec.decode!("0.#{String.duplicate("0", 20_000)}1") === 0.0
      assert Codec.decode!("0.#{nines}") === 1.0
      assert Codec.decode!("1e#{String.duplicate("0", 2_000)}2") === 100.0
      assert Codec.decode!(nines) == Integer.pow(10, 20_000) - 1
    end

    test "objects with equal keys, and very long keys" do
      pairs = List.duplicate(~S("a":1), @long)
      assert Codec.decode!("{#{Enum.join(pairs, ",")}}") == %{"a" => 1}
      long = String.duplicate("k", @long)
      assert Codec.decode!(~s([{"#{long}":1},{"#{long}":2}])) == [%{long => 1}, %{long => 2}]
    end

    test "a string that is not UTF-8 ends the work of the NIF, however often it is there" do
      broken = String.duplicate("a", 100_000) <> <<255>>

      for term <- [List.duplicate(broken, 1_000), %{"a" => [%{broken => 1}, broken]}],
          encoded <- [Native.codec_encode(term), Native.codec_encode_dirty(term, 0)] do
        assert encoded == [{term}], "the NIF has gone on, and Elixir is to encode only parts"
      end
    end

    test "a term with 2^100 shared parts raises without visiting each of them" do
      # Each level contains the one below it twice, which gives more values than could ever be visited.
      twice = fn bottom, level -> Enum.reduce(1..100, bottom, fn _, inner -> level.(inner) end) end

      for {bottom, level, expected} <- [
            {:end, &[&1, [&1 | &1]], FunctionClauseError},
            {[1 | 2], &[&1, &1], FunctionClauseError},
            {{1}, &[&1, &1], Protocol.UndefinedError},
            {{1}, &%{a: &1, b: &1, __struct__: NoSuchModule}, Protocol.UndefinedError},
            {{1}, &%{1 => &1, "x" => &1, __struct__: NoSuchModule}, Protocol.UndefinedError}
          ] do
        assert expected == error(fn -> Codec.encode!(twice.(bottom, level)) end).__struct__
      end
    end

    test "thousands of nested improper lists raise, and thousands of dates are encoded" do
      assert_raise FunctionClauseError, fn -> Codec.encode!(Enum.to_list(1..@long) ++ :end) end
      assert_raise FunctionClauseError, fn -> Codec.encode!(Enum.reduce(1..1_000, :end, &[&1, [&1 | &2] | &2])) end
      dates = List.duplicate(~D[2026-01-02], 20_000)
      assert byte_size(Codec.encode!(dates)) == 20_000 * 13 + 1
    end
  end

  defp numbers(count) when is_integer(count), do: Enum.to_list(1..count)
  defp numbers(list), do: list

  defp depth(term, depth \\ 0)
  defp depth([inner], depth), do: depth(inner, depth + 1)
  defp depth(%{"a" => inner}, depth), do: depth(inner, depth + 1)
  defp depth(1, depth), do: depth
end
