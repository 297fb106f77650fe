defmodule DurableHandoff.Codec.Plain do
  @moduledoc false
  # JSON without the NIF: Elixir's own module where there is one (from 1.18 on), else the one in this library.
  #
  # Guarantee: encodes, decodes or refuses what the NIF leaves out, so that the whole result is that of JSON.

  alias DurableHandoff.Codec.{DecodeError, Decoder, Encoder}

  {encoder, decoder} = if Code.ensure_loaded?(JSON), do: {JSON, JSON}, else: {Encoder, Decoder}

  @doc "The JSON of a term; raises what `JSON.encode_to_iodata!/1` raises from Elixir 1.18 on."
  @spec encode_to_iodata!(term()) :: iodata()
  defdelegate encode_to_iodata!(term), to: encoder

  @doc "The term of a text, or why there is none."
  @spec decode(binary()) :: {:ok, term()} | {:error, DecodeError.reason()}
  defdelegate decode(text), to: decoder

  @doc "The term of a text; raises `JSON.DecodeError`, without JSON `DurableHandoff.Codec.DecodeError`."
  @spec decode!(binary()) :: term()
  defdelegate decode!(text), to: decoder

  @doc "A key that is not a binary, atom or small integer, in the form that JSON gives it."
  @spec encode_key!(term()) :: iodata()
  def encode_key!(key) when is_atom(key), do: key |> Atom.to_string() |> encode_to_iodata!()
  def encode_key!(key), do: key |> String.Chars.to_string() |> encode_to_iodata!()
end
