defmodule DurableHandoff.Codec.Encoder do
  @moduledoc false
  # Encodes JSON without the NIF and without Elixir's JSON module: on Elixir before 1.18, what the NIF leaves out.
  #
  # Guarantee: the bytes and the exceptions of Elixir's JSON. Before 1.18 a protocol of this library replaces
  # JSON.Encoder.

  alias DurableHandoff.Codec.{Encodable, UTF8}

  @doc "The JSON of `term`; raises what `JSON.encode_to_iodata!/1` raises."
  @spec encode_to_iodata!(term()) :: iodata()
  def encode_to_iodata!(term), do: value(term)

  defp value(nil), do: "null"
  defp value(true), do: "true"
  defp value(false), do: "false"
  defp value(atom) when is_atom(atom), do: string(Atom.to_string(atom))
  defp value(string) when is_bitstring(string), do: string(string)
  defp value(integer) when is_integer(integer), do: Integer.to_string(integer)
  defp value(float) when is_float(float), do: :erlang.float_to_binary(float, [:short])
  defp value([]), do: "[]"
  defp value([first | rest]), do: [?[, value(first) | elements(rest)]
  defp value(%{__struct__: module} = struct) when is_atom(module), do: other(struct)
  defp value(map) when is_map(map), do: map(:maps.next(:maps.iterator(map)))
  defp value(other), do: other(other)

  # An improper list has no clause here, as in JSON.
  defp elements([]), do: "]"
  defp elements([element | rest]), do: [?,, value(element) | elements(rest)]

  defp map(:none), do: "{}"
  defp map({key, value, iterator}), do: [?{, key(key), ?:, value(value) | pairs(:maps.next(iterator))]

  defp pairs(:none), do: "}"
  defp pairs({key, value, iterator}), do: [?,, key(key), ?:, value(value) | pairs(:maps.next(iterator))]

  defp key(key) when is_atom(key), do: string(Atom.to_string(key))
  defp key(key) when is_binary(key), do: string(key)
  defp key(key), do: string(String.Chars.to_string(key))

  # Raises Protocol.UndefinedError where there is no implementation.
  defp other(term), do: Encodable.encode(term, fn part, _encoder -> value(part) end)

  defp string(bytes) when is_binary(bytes) do
    case UTF8.problem(bytes) do
      nil -> [?", escape(bytes, bytes, 0, 0), ?"]
      :unexpected_end -> :erlang.error(:unexpected_end)
      {:invalid_byte, _offset, byte} -> :erlang.error({:invalid_byte, byte})
    end
  end

  # `len` plain bytes from `from` on have not been written yet.
  defp escape(<<>>, bytes, 0, _len), do: bytes
  defp escape(<<>>, bytes, from, len), do: binary_part(bytes, from, len)

  defp escape(<<byte, rest::binary>>, bytes, from, len) when byte < ?\s or byte in [?", ?\\] do
    [binary_part(bytes, from, len), escape(byte) | escape(rest, bytes, from + len + 1, 0)]
  end

  defp escape(<<_byte, rest::binary>>, bytes, from, len), do: escape(rest, bytes, from, len + 1)

  defp escape(?"), do: "\\\""
  defp escape(?\\), do: "\\\\"
  defp escape(?\b), do: "\\b"
  defp escape(?\t), do: "\\t"
  defp escape(?\n), do: "\\n"
  defp escape(?\f), do: "\\f"
  defp escape(?\r), do: "\\r"
  defp escape(byte), do: ["\\u00", Base.encode16(<<byte>>)]
end
