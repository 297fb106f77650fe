defmodule DurableHandoff.Store.Body do
  @moduledoc false
  # Objects as bytes: JSON, stored states in their three-key envelope.
  #
  # Guarantee: nothing raises. What JSON cannot write is {:error, {:not_encodable, why}}, what cannot be read is
  # {:error, {:unreadable, why}}, where `why` is the exception.

  alias DurableHandoff.Codec
  alias DurableHandoff.Host.StoredState

  @spec encode(term()) :: {:ok, binary()} | {:error, {:not_encodable, term()}}
  def encode(data) do
    {:ok, data |> StoredState.to_object() |> Codec.encode!()}
  rescue
    error -> {:error, {:not_encodable, error}}
  end

  @spec decode(binary()) :: {:ok, term()} | {:error, {:unreadable, term()}}
  def decode(bytes) when is_binary(bytes) do
    with {:ok, object} <- parse(bytes), do: StoredState.from_object(object)
  end

  # Decoded already: a caller that cannot know which of the two it has.
  def decode(object), do: StoredState.from_object(object)

  defp parse(bytes) do
    {:ok, Codec.decode!(bytes)}
  rescue
    error -> {:error, {:unreadable, error}}
  end
end
