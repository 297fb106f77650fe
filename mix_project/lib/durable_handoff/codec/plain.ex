defmodule DurableHandoff.Codec.Plain do
  @moduledoc false
  # JSON without the NIF: Elixir's own module where there is one (from 1.18 on), else the one in this library.
  #
  # Guarantee: encodes, decodes or refuses what the NIF leaves out, so that the whole result is that of JSON.

  if Code.ensure_loaded?(JSON) do
    @doc "The JSON of a term; raises what `JSON.encode_to_iodata!/1` raises."
    @spec encode_to_iodata!(term()) :: iodata()
    defdelegate encode_to_iodata!(term), to: JSON

    @doc "The term of a text, or why there is none."
    @spec decode(binary()) :: {:ok, term()} | {:error, DurableHandoff.Codec.DecodeError.reason()}
    defdelegate decode(text), to: JSON

    @doc "The term of a text; raises `JSON.DecodeError`."
    @spec decode!(binary()) :: term()
    defdelegate decode!(text), to: JSON
  else
    alias DurableHandoff.Codec.{DecodeError, Decoder, Encoder}

    @doc "The JSON of a term; raises what `JSON.encode_to_iodata!/1` raises from Elixir 1.18 on."
    @spec encode_to_iodata!(term()) :: iodata()
    defdelegate encode_to_iodata!(term), to: Encoder

    @doc "The term of a text, or why there is none."
    @spec decode(binary()) :: {:ok, term()} | {:error, DurableHandoff.Codec.DecodeError.reason()}
    defdelegate decode(text), to: Decoder

    @doc "The term of a text; raises `DurableHandoff.Codec.DecodeError`."
    @spec decode!(binary()) :: term()
    def decode!(text) do
      case Decoder.decode(text) do
        {:ok, term} -> term
        {:error, reason} -> raise DecodeError.from(reason, text)
      end
    end
  end

  @doc "A key that is not a binary, atom or small integer, in the form that JSON gives it."
  @spec encode_key!(term()) :: iodata()
  def encode_key!(key) when is_atom(key), do: key |> Atom.to_string() |> encode_to_iodata!()
  def encode_key!(key) when is_binary(key), do: encode_to_iodata!(key)
  def encode_key!(key), do: key |> String.Chars.to_string() |> encode_to_iodata!()
end
