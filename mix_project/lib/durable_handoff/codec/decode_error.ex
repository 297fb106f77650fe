defmodule DurableHandoff.Codec.DecodeError do
  @moduledoc """
  Raised by `DurableHandoff.Codec.decode!/1` on Elixir before 1.18, where there is no `JSON.DecodeError`.

  The fields and what they say are the same: `message`, `offset` (of the byte that cannot stand there, or where the text ends) and
  `data` (the text).
  """

  @type reason ::
          {:unexpected_end, offset :: non_neg_integer()}
          | {:invalid_byte, offset :: non_neg_integer(), byte()}
          | {:unexpected_sequence, offset :: non_neg_integer(), binary()}
  @type t :: %__MODULE__{message: String.t(), offset: non_neg_integer(), data: binary()}

  defexception [:message, :offset, :data]

  @doc false
  @spec from(reason(), binary()) :: t()
  def from(reason, data), do: %__MODULE__{message: describe(reason), offset: elem(reason, 1), data: data}

  defp describe({:unexpected_end, _offset} = reason), do: "unexpected end of JSON binary" <> position(reason)
  defp describe({:invalid_byte, _offset, byte} = reason), do: "invalid byte #{byte}" <> position(reason)

  defp describe({:unexpected_sequence, _offset, bytes} = reason) do
    "unexpected sequence #{inspect(bytes)}" <> position(reason)
  end

  defp position(reason), do: " at position (byte offset) #{elem(reason, 1)}"
end
