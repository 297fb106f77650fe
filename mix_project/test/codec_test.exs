defmodule DurableHandoff.CodecTest do
  use ExUnit.Case, async: true

  import DurableHandoff.CodecHelpers

  alias DurableHandoff.Codec
  alias DurableHandoff.Codec.DecodeError

  @otp String.to_integer(System.otp_release())
  @json? Code.ensure_loaded?(JSON)
  @decode_error if @json?, do: JSON.DecodeError, else: DecodeError

  describe "strings" do
    test "only quotes, backslashes and control characters are escaped, in upper case" do
      assert Codec.encode!("a\"b\\c\n\r\t\b\f\e\0/\u007F\u2028é😀") ==
               ~S("a\"b\\c\n\r\t\b\f\u001B\u0000/) <> "\u007F\u2028é😀\""
    end

    test "a special character is found at every position of a string of every length" do
      for length <- 0..150, position <- 0..max(length - 1, 0), special <- ["\"", "\\", "\x1F"], length > 0 do
        string = String.duplicate("x", position) <> special <> String.duplicate("y", length - position - 1)
        json = encode_plainly(string)
        assert Codec.encode!(string) == json
        assert Codec.decode!(json) == string
      end
    end

    test "a part of a larger binary, and one that does not start at a byte, are encoded" do
      text = String.duplicate("pad", 50) <> String.duplicate("é", 60)
      part = binary_part(text, 150, 120)
      <<_::3, shifted::binary-size(120), _::5>> = <<0::3, part::binary, 0::5>>
      assert Codec.encode!([part, shifted]) == ~s(["#{part}","#{part}"])

      json = ~s({"key":"#{part}"})
      <<_::3, shifted::binary-size(130), _::5>> = <<0::3, json::binary, 0::5>>
      assert Codec.decode!(shifted) == %{"key" => part}
    end

    test "invalid UTF-8 anywhere raises the exception of JSON" do
      late = String.duplicate("x", 200) <> "\xE2\x28\xA1"

      for bad <- ["\xFF", "\xC3(", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xC0\x80", late],
          term <- [bad, [1, bad], %{"key" => bad}, %{bad => 1}] do
        assert %ErlangError{original: {:invalid_byte, _byte}} = error(fn -> Codec.encode!(term) end)
      end

      assert %ErlangError{original: :unexpected_end} = error(fn -> Codec.encode!(["ok", "\xE2\x82"]) end)
    end

    test "copied strings do not keep the text that they were read from" do
      text = Codec.encode!([String.duplicate("x", 100), String.duplicate("y", 10_000)])
      assert [first, _second] = Codec.decode!(text)
      assert :binary.referenced_byte_size(first) == byte_size(text)
      assert [first, _second] = Codec.decode!(text, strings: :copy)
      assert :binary.referenced_byte_size(first) == 100
    end
  end

  describe "keys" do
    test "a repeated key keeps its first value" do
      assert Codec.decode!(~S({"a":1,"b":2,"a":3})) == %{"a" => 1, "b" => 2}
      many = Enum.map_join(1..100, ",", &~s("#{rem(&1, 50)}":#{&1}))
      assert Codec.decode!("{#{many}}") == Map.new(1..50, &{Integer.to_string(rem(&1, 50)), &1})
    end

    test "keys with the same text are both written" do
      assert Codec.encode!(%{1 => "a", "1" => "b"}) in [~S({"1":"a","1":"b"}), ~S({"1":"b","1":"a"})]
    end

    test "nil, true and false are strings as keys, and JSON literals as values" do
      assert Codec.encode!(%{nil => nil}) == ~S({"nil":null})
      assert Codec.encode!(%{true => true}) == ~S({"true":true})
      assert Codec.encode!([nil, true, false, :ok]) == ~S([null,true,false,"ok"])
    end

    test "keys of other types are converted by String.Chars" do
      assert Codec.encode!(%{1.5 => 1}) == ~S({"1.5":1})
      assert Codec.encode!(%{~c"abc" => 1}) == ~S({"abc":1})
      assert Codec.encode!(%{~D[2026-01-02] => 1}) == ~S({"2026-01-02":1})
      assert Codec.encode!(%{1_000_000_000_000_000_000_000 => 1}) == ~S({"1000000000000000000000":1})
      assert_raise Protocol.UndefinedError, fn -> Codec.encode!(%{{1} => 1}) end
    end

    test "atoms of every alphabet and length are written as they are" do
      longest = for character <- ["x", "é"], do: String.duplicate(character, 255)

      for text <- ["", "é", "日本", "with space", "a\"b", "new\nline" | longest] do
        atom = String.to_atom(text)
        assert Codec.encode!([atom, %{atom => atom}]) == encode_plainly([text, %{text => text}])
        assert Codec.encode!([atom, %{atom => atom}]) == encode_plainly([text, %{text => text}])
      end
    end

    test "many different atoms are not confused" do
      atoms = for i <- 1..2_000, do: String.to_atom("codec_test_#{i}")
      assert Codec.encode!(atoms) == encode_plainly(Enum.map(atoms, &Atom.to_string/1))

      assert Codec.decode!(Codec.encode!(Map.new(atoms, &{&1, &1}))) ==
               Map.new(atoms, &{Atom.to_string(&1), Atom.to_string(&1)})
    end

    test "only an atom key :__struct__ makes a struct" do
      assert Codec.encode!(%{"__struct__" => "Elixir.Date"}) == ~S({"__struct__":"Elixir.Date"})
      assert Codec.encode!(%{__struct__: 1}) == ~S({"__struct__":1})
      assert_raise Protocol.UndefinedError, fn -> Codec.encode!(%{__struct__: NoSuchModule}) end
    end
  end

  describe "numbers" do
    test "integers of any size" do
      for exponent <- 0..200,
          integer = Integer.pow(2, exponent),
          integer <- [integer - 1, integer, -integer, -integer - 1] do
        assert Codec.encode!(integer) == Integer.to_string(integer)
        assert Codec.decode!(Integer.to_string(integer)) === integer
      end

      digits = String.duplicate("7", 5_000)
      assert Codec.decode!("[#{digits}]") == [String.to_integer(digits)]
    end

    test "floats are written with the fewest digits and read to the same float" do
      extreme = [5.0e-324, 1.7976931348623157e308, 9_007_199_254_740_992.0]

      for float <- [0.0, 0.1, 1.0e-5, 1.0e15, 1.0e22, 123_456_789.125 | extreme],
          float <- [float, -float] do
        assert Codec.encode!(float) == :erlang.float_to_binary(float, [:short])
        assert Codec.decode!(Codec.encode!(float)) === float
      end
    end

    test "numbers outside the range of floats are refused, and zeros keep their value" do
      for text <- ["1e400", "-1e400", "[1.5e309]"],
          do: assert({:error, {:unexpected_sequence, _, _}} = Codec.decode(text))

      assert Codec.decode!("[-0, 1e-400, 0e9]") === [0, 0.0, 0.0]
      assert <<1::1, _::63>> = <<Codec.decode!("-0.0")::float>>
      # A zero with an exponent and no fraction gives up its sign in JSON, and so it does here.
      assert <<0::64>> = <<Codec.decode!("-0e1")::float>>
    end
  end

  describe "structs" do
    test "dates and times are ISO 8601" do
      utc = [~U[2026-01-02 03:04:05.678901Z], ~U[2026-01-02 03:04:05.60Z], ~U[2026-01-02 03:04:05Z]]

      for value <- [~U[0001-01-01 00:00:00Z], ~N[2026-01-02 03:04:05.6], ~D[2026-01-02], ~T[03:04:05.678] | utc] do
        assert Codec.encode!([value]) == ~s(["#{value.__struct__.to_iso8601(value)}"])
      end
    end

    test "a DateTime outside UTC or the years 0 to 9999 is encoded by Elixir" do
      utc = ~U[2026-01-02 03:04:05.678901Z]
      elsewhere = %{utc | time_zone: "Europe/London", zone_abbr: "BST", utc_offset: 0, std_offset: 3600}

      for value <- [elsewhere, %{utc | year: -5}, %{utc | year: 12_345}] do
        assert Codec.encode!(value) == ~s("#{DateTime.to_iso8601(value)}")
      end
    end

    test "a term without a JSON form raises, however deep it is" do
      for value <- [{1, 2}, self(), make_ref(), fn -> 1 end, 1..3, MapSet.new([1])] do
        for term <- [value, [1, %{"a" => [value]}]] do
          assert %Protocol.UndefinedError{value: ^value} = error(fn -> Codec.encode!(term) end)
        end
      end
    end

    test "the first of several errors in a term is the one that is raised" do
      assert %Protocol.UndefinedError{value: {1}} = error(fn -> Codec.encode!([{1}, "\xFF"]) end)
      assert %ErlangError{} = error(fn -> Codec.encode!(["\xFF", {1}]) end)
      assert %ErlangError{} = error(fn -> Codec.encode!([1, "\xFF" | 2]) end)
      assert %FunctionClauseError{} = error(fn -> Codec.encode!([[1 | 2], "\xFF"]) end)
    end
  end

  defmodule Money do
    defstruct [:amount, :currency]

    defimpl DurableHandoff.Codec.Encodable do
      def encode(money, encoder), do: encoder.(%{money.currency => [money.amount]}, encoder)
    end
  end

  test "before Elixir has JSON.Encoder, a protocol of this library encodes structs" do
    assert encode_plainly([%Money{amount: 5, currency: :eur}]) == ~S([{"eur":[5]}])
    unless @json?, do: assert(Codec.encode!([%Money{amount: 5, currency: :eur}]) == ~S([{"eur":[5]}]))
    message = Exception.message(error(fn -> encode_plainly([1..2]) end))
    assert message =~ "protocol DurableHandoff.Codec.Encodable not implemented for"
  end

  if @json? do
    defmodule Derived do
      @derive {JSON.Encoder, only: [:name, :more]}
      defstruct [:name, :secret, :more]
    end

    test "structs with their own encoder use it, also for their contents" do
      term = %{
        "list" => [%Derived{name: "a\n", secret: 1, more: %Derived{name: %{b: 2.5}}}, 1],
        "z" => ~U[2026-01-02 03:04:05Z]
      }

      assert Codec.encode!(term) == JSON.encode!(term)
      assert IO.iodata_to_binary(Codec.encode_to_iodata!(term)) == JSON.encode!(term)
    end

    test "each decode error is that of JSON" do
      for text <- broken_texts() do
        assert Codec.decode(text) == JSON.decode(text)
        assert Codec.Decoder.decode(text) == JSON.decode(text)
        assert error(fn -> Codec.decode!(text) end) == error(fn -> JSON.decode!(text) end)
      end
    end
  end

  # Native records exist from OTP 29 on; asking the VM for the type of one ends it.
  if @otp >= 29 do
    test "a native record has no JSON form and does not end the VM" do
      source = "-module(codec_test_record).\n-export([new/0]).\n-record #point{x = 1}.\nnew() -> #point{x = 2}.\n"
      {:ok, tokens, _line} = source |> String.to_charlist() |> :erl_scan.string()

      forms =
        tokens
        |> Enum.chunk_while(
          [],
          &if(elem(&1, 0) == :dot, do: {:cont, Enum.reverse([&1 | &2]), []}, else: {:cont, [&1 | &2]}),
          &{:cont, &1}
        )
        |> Enum.map(fn tokens -> elem(:erl_parse.parse_form(tokens), 1) end)

      {:ok, module, beam} = :compile.forms(forms)
      {:module, ^module} = :code.load_binary(module, ~c"codec_test_record.erl", beam)
      record = module.new()
      assert %Protocol.UndefinedError{value: ^record} = error(fn -> Codec.encode!(%{"a" => [record]}) end)
      # Not assert_raise: Elixir 1.20 has no message for a record.
      assert %Protocol.UndefinedError{value: ^record} = error(fn -> Codec.encode!(%{record => 1}) end)
    end
  end

  describe "errors as values" do
    test "decode! raises with the offset and the text" do
      assert %{offset: 3, data: "[1 2]"} = assert_raise(@decode_error, fn -> Codec.decode!("[1 2]") end)
    end

    test "a term that is not a binary is refused" do
      for text <- [~c"[1]", <<1::3>>, nil],
          do: assert_raise(FunctionClauseError, fn -> apply(Codec, :decode!, [text]) end)

      assert_raise FunctionClauseError, fn -> Codec.encode!([<<1::3>>]) end
    end

    test "an unknown option is refused" do
      assert_raise ArgumentError, fn -> Codec.encode!(1, size: 5) end
      assert_raise ArgumentError, fn -> Codec.decode!("1", strings: :share) end
    end
  end

  if @json? do
    defp broken_texts do
      ~w(nul nulx nullx txxxx - -x 01 1. 1.x 1e 1e+ 1e+x +1 .5 1x 1e400 [1e400) ++
        ["", " ", "1 2", "1.5e309 ", "[1 2]", "[,", "[1,\0]", <<0>>, "\xEF\xBB\xBF1"] ++
        ~W([ [1 [1,] [1]] { {1 {"a" {"a":1 {"a":1,}) ++
        [~S({"a" 1}), ~S({"a":1 x)] ++
        ~W(" "a "\ "\x "\u "\u12 "\u12" "\uzzzz "\ud800 "\ud800" "\ud83dxxxxx "\ud83dxxxxxx "\ud83d\u0041") ++
        ~W("\ud83d\uzzzz" "\udc00") ++
        ["\"\n", "\"\\na\x01", "\"\xFF", "\"a\xE2\x82", "\"a\xE2\x82x", "\"\\n\xE2\x82"]
    end
  end
end
