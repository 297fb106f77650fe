defmodule DurableHandoff.Store.Body do
  @moduledoc false
  # Objects as bytes: JSON, stored states in their three-key envelope.
  #
  # Guarantee: nothing raises. What JSON cannot write is {:error, {:not_encodable, exception}}, what cannot be
  # read is {:error, {:unreadable, exception}}.

  alias DurableHandoff.Codec
  alias DurableHandoff.Host.StoredState

  @spec encode(term()) :: {:ok, binary()} | {:error, {:not_encodable, term()}}
  def encode(data) do
    {:ok, data |> StoredState.to_object() |> Codec.encode!()}
  rescue
    error -> {:error, {:not_encodable, error}}
  end

  @doc "Decodes an object. `strings` is the option of `DurableHandoff.Codec`."
  @spec decode(term(), :copy | :reference) :: {:ok, term()} | {:error, {:unreadable, Exception.t()}}
  def decode(bytes, strings) when is_binary(bytes) do
    with {:ok, object} <- parse(bytes, strings), do: decode(object, strings)
  end

  # The caller has decoded the JSON already.
  def decode(object, _strings) do
    with {:error, error} <- StoredState.from_object(object), do: {:error, {:unreadable, error}}
  end

  @doc "The same for bytes read from `key`, which the error then names."
  @spec decode(binary(), :copy | :reference, key :: String.t()) ::
          {:ok, term()} | {:error, {:unreadable, %{key: String.t(), error: Exception.t()}}}
  def decode(bytes, strings, key) do
    with {:error, {:unreadable, error}} <- decode(bytes, strings),
         do: {:error, {:unreadable, %{key: key, error: error}}}
  end

  defp parse(bytes, strings) do
    {:ok, Codec.decode!(bytes, strings: strings)}
  rescue
    error -> {:error, {:unreadable, error}}
  end
end
