defmodule DurableHandoff.Codec.UTF8 do
  @moduledoc false
  # Finds the first error in bytes that are not UTF-8.
  #
  # Guarantee: the position is that of a decoder that reads byte by byte: the first byte that starts no character, or
  # that does not continue the character before. For overlong forms, surrogates and characters above U+10FFFF that is
  # the second byte.

  @type problem :: {:invalid_byte, offset :: non_neg_integer(), byte()} | :unexpected_end

  @doc "The first problem of `bytes`, counted from `offset`; nil when they are UTF-8."
  @spec problem(binary(), non_neg_integer()) :: problem() | nil
  def problem(bytes, offset \\ 0)
  def problem(<<>>, _offset), do: nil
  def problem(<<char::utf8, rest::binary>>, offset), do: problem(rest, offset + byte_size(<<char::utf8>>))

  def problem(<<first, rest::binary>>, offset) do
    case following(first) do
      nil -> {:invalid_byte, offset, first}
      ranges -> follow(ranges, rest, offset + 1)
    end
  end

  # The bytes that may follow: the range of the second one, then how many more.
  defp following(first) when first in 0xC2..0xDF, do: [0x80..0xBF]
  defp following(0xE0), do: [0xA0..0xBF, 0x80..0xBF]
  defp following(0xED), do: [0x80..0x9F, 0x80..0xBF]
  defp following(first) when first in 0xE1..0xEF, do: [0x80..0xBF, 0x80..0xBF]
  defp following(0xF0), do: [0x90..0xBF, 0x80..0xBF, 0x80..0xBF]
  defp following(0xF4), do: [0x80..0x8F, 0x80..0xBF, 0x80..0xBF]
  defp following(first) when first in 0xF1..0xF3, do: [0x80..0xBF, 0x80..0xBF, 0x80..0xBF]
  defp following(_first), do: nil

  defp follow([_range | _], <<>>, _offset), do: :unexpected_end

  defp follow([range | ranges], <<byte, rest::binary>>, offset) do
    if byte in range, do: follow(ranges, rest, offset + 1), else: {:invalid_byte, offset, byte}
  end
end
