defmodule SimulatedStore.Codec do
  @moduledoc """
  Encodes and decodes objects. A stored state is written in its three-key form. As with JSON, atoms become
  strings, and a term that JSON cannot represent is an error.
  """

  @compile {:no_warn_undefined, DurableServer.StoredState}

  @doc "Encodes a stored state or a plain map. Bytes stay unchanged."
  @spec encode(struct() | map() | binary()) :: {:ok, binary()} | {:error, {:not_encodable, term()}}
  def encode(bytes) when is_binary(bytes), do: {:ok, bytes}

  def encode(%{__struct__: DurableServer.StoredState} = stored),
    do: encode(DurableServer.StoredState.to_object_store_term(stored))

  def encode(data) do
    {:ok, :erlang.term_to_binary(as_json(data))}
  catch
    {:not_encodable, term} -> {:error, {:not_encodable, term}}
  end

  @doc "Decodes bytes to a stored state or a plain map. A decoded term stays unchanged."
  @spec decode!(binary() | struct() | map()) :: struct() | map()
  def decode!(bytes) when is_binary(bytes) do
    term = :erlang.binary_to_term(bytes)

    case DurableServer.StoredState.from_object_store_term(term) do
      {:ok, stored} -> stored
      :not_stored_state -> term
      {:error, error} -> raise error
    end
  end

  def decode!(term), do: term

  defp as_json(%_struct{} = struct), do: throw({:not_encodable, struct})
  defp as_json(map) when is_map(map), do: Map.new(map, fn {key, value} -> {key(key), as_json(value)} end)
  defp as_json(list) when is_list(list), do: Enum.map(list, &as_json/1)
  defp as_json(word) when word in [nil, true, false], do: word
  defp as_json(atom) when is_atom(atom), do: Atom.to_string(atom)
  defp as_json(scalar) when is_binary(scalar) or is_number(scalar), do: scalar
  defp as_json(other), do: throw({:not_encodable, other})

  defp key(key) when is_binary(key), do: key
  defp key(key) when is_atom(key) or is_number(key), do: to_string(key)
  defp key(key), do: throw({:not_encodable, key})
end
