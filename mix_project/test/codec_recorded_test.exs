defmodule DurableHandoff.CodecRecordedTest do
  use ExUnit.Case, async: true

  import DurableHandoff.CodecHelpers

  alias DurableHandoff.Codec
  alias DurableHandoff.Codec.{DecodeError, Decoder}

  @otp String.to_integer(System.otp_release())
  @json? Code.ensure_loaded?(JSON)
  @decode_error if @json?, do: JSON.DecodeError, else: DecodeError

  # Recorded from Elixir 1.20 on OTP 29: terms with the bytes or the exception of JSON.encode!/1, texts with the term or the
  # exception of JSON.decode!/1.
  @recorded "../../test/vectors/codec.json" |> Path.expand(__DIR__) |> File.read!()

  describe "recorded answers" do
    test "every recorded term is encoded to the recorded bytes, or raises the recorded exception" do
      for %{"term_etf_base64" => etf} = recorded <- recorded("encode") do
        term = etf |> Base.decode64!() |> :erlang.binary_to_term()

        case recorded do
          %{"error" => error} -> assert error == raised(fn -> Codec.encode!(term) end)
          %{"json_base64" => json} -> assert_same_json(Codec.encode!(term), Base.decode64!(json), term)
        end
      end
    end

    test "every recorded text is decoded to the recorded term, or raises" do
      for %{"text_base64" => text} = recorded <- recorded("decode"), text = Base.decode64!(text) do
        case recorded do
          %{"error" => "JSON.DecodeError"} ->
            assert_raise @decode_error, fn -> Codec.decode!(text) end

          %{"term_etf_base64" => etf} ->
            term = etf |> Base.decode64!() |> :erlang.binary_to_term()
            assert Codec.decode!(text) === term
            assert Codec.decode!(text, strings: :copy) === term
            assert {:ok, ^term} = Decoder.decode(text)
        end
      end
    end

    test "the fallback for older versions gives the recorded answers too" do
      for %{"term_etf_base64" => etf, "json_base64" => json} <- recorded("encode") do
        term = etf |> Base.decode64!() |> :erlang.binary_to_term()
        if plain_struct?(term), do: assert_same_json(encode_plainly(term), Base.decode64!(json), term)
      end
    end
  end

  defp recorded(part) do
    {:ok, recorded} = Decoder.decode(@recorded)
    Map.fetch!(recorded, part)
  end

  # The order of keys depends on the VM: for atoms on the order in which it created them, for others on its
  # version. If it may differ from the recorded one, it has to be that of the peer, and the decoded bytes have
  # to be equal.
  defp assert_same_json(json, recorded, term) do
    assert Decoder.decode(json) === Decoder.decode(recorded), "encoded #{inspect(term)}"
    assert byte_size(json) == byte_size(recorded)
    assert json == peer_encode!(term)
    if @otp >= 29 and not atom_keys?(term), do: assert(json == recorded, "encoded #{inspect(term)}")
  end

  defp atom_keys?(%_{}), do: true
  defp atom_keys?(map) when is_map(map), do: Enum.any?(map, fn {key, value} -> is_atom(key) or atom_keys?(value) end)
  defp atom_keys?([_ | _] = list), do: Enum.any?(list, &atom_keys?/1)
  defp atom_keys?(_other), do: false

  if @json? do
    defp peer_encode!(term), do: JSON.encode!(term)
  else
    defp peer_encode!(term), do: encode_plainly(term)
  end

  defp plain_struct?(%{__struct__: module}), do: module in [Date, Time, DateTime, NaiveDateTime]

  defp plain_struct?(map) when is_map(map),
    do: Enum.all?(map, fn {key, value} -> not is_struct(key) and plain_struct?(value) end)

  defp plain_struct?(list) when is_list(list), do: Enum.all?(list, &plain_struct?/1)
  defp plain_struct?(_other), do: true

  defp raised(fun), do: inspect(error(fun).__struct__)
end
