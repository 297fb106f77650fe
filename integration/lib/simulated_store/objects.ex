defmodule SimulatedStore.Objects do
  @moduledoc """
  The objects and the rules of conditional writes. Pure; every write gives the object a new etag.
  """

  @type t :: %{last: non_neg_integer(), by_key: %{String.t() => {String.t(), binary()}}}

  @spec new() :: t()
  def new, do: %{last: 0, by_key: %{}}

  @doc "Applies one request: its answer, and the objects after it."
  @spec apply(t(), {atom(), String.t(), term()}) :: {term(), t()}
  def apply(objects, {:get, key, _}) do
    case objects.by_key do
      %{^key => {etag, bytes}} -> {{:ok, etag, bytes}, objects}
      %{} -> {{:error, :not_found}, objects}
    end
  end

  def apply(objects, {:put, key, {expected, bytes}}) do
    if expected == nil or etag(objects, key) == expected,
      do: write(objects, key, bytes),
      else: {{:error, :conflict}, objects}
  end

  def apply(objects, {:claim, key, bytes}) do
    if Map.has_key?(objects.by_key, key),
      do: {{:error, :already_claimed}, objects},
      else: write(objects, key, bytes)
  end

  def apply(objects, {:delete, key, expected}) do
    case etag(objects, key) do
      nil -> {{:error, :not_found}, objects}
      etag when expected in [nil, etag] -> {:ok, %{objects | by_key: Map.delete(objects.by_key, key)}}
      _other -> {{:error, :conflict}, objects}
    end
  end

  def apply(objects, {:list, prefix, _}) do
    listed = for {key, {etag, bytes}} <- objects.by_key, String.starts_with?(key, prefix), do: {key, etag, bytes}
    {{:ok, Enum.sort(listed)}, objects}
  end

  defp write(objects, key, bytes) do
    number = objects.last + 1
    etag = Integer.to_string(number)
    {{:ok, etag}, %{last: number, by_key: Map.put(objects.by_key, key, {etag, bytes})}}
  end

  defp etag(objects, key) do
    case objects.by_key do
      %{^key => {etag, _bytes}} -> etag
      %{} -> nil
    end
  end
end
