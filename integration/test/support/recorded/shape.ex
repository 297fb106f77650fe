defmodule Recorded.Shape do
  @moduledoc """
  Formats a term as text that is the same in every run: tags, small numbers and short words stay, while
  identities and times are replaced by the name of their kind. Maps are written in the order of their keys,
  which is the same on every OTP.
  """

  @width 100
  # Larger numbers count time since some epoch, or identify something.
  @large 1_000_000
  @long 40

  @doc "`names` has the values that are replaced by names, as `%{value => name}`."
  @spec of(term(), %{term() => String.t()}) :: String.t()
  def of(term, names \\ %{}), do: term |> tree(names) |> lines(0)

  # A leaf is text, an inner node `{open, items, close}`.
  defp tree(term, names) do
    case names do
      %{^term => name} -> name
      %{} -> shape(term, names)
    end
  end

  defp shape(pid, _names) when is_pid(pid), do: "pid"
  defp shape(ref, _names) when is_reference(ref), do: "reference"
  defp shape(fun, _names) when is_function(fun), do: "function"
  defp shape(large, _names) when is_integer(large) and abs(large) >= @large, do: "integer"
  defp shape(text, _names) when is_binary(text) and byte_size(text) > @long, do: "string"
  defp shape([frame | _] = list, names), do: if(frame?(frame), do: "stacktrace", else: shape_list(list, names))
  defp shape(%{__exception__: true, __struct__: module}, _names), do: "%#{inspect(module)}{}"

  defp shape(%{__struct__: module} = struct, names),
    do: {"%#{inspect(module)}{", pairs(Map.from_struct(struct), names), "}"}

  defp shape(%{} = map, names), do: {"%{", pairs(map, names), "}"}
  defp shape(tuple, names) when is_tuple(tuple), do: {"{", tuple |> Tuple.to_list() |> Enum.map(&tree(&1, names)), "}"}
  defp shape(leaf, _names), do: inspect(leaf)

  defp shape_list(list, names) do
    if Keyword.keyword?(list),
      do: {"[", Enum.map(list, &pair(&1, names)), "]"},
      else: {"[", Enum.map(list, &tree(&1, names)), "]"}
  end

  defp pairs(map, names), do: map |> Enum.map(&pair(&1, names)) |> Enum.sort_by(&key_of/1)

  # Etags are the store's own.
  defp pair({:etag, etag}, _names) when is_binary(etag), do: {:pair, "etag: ", "etag"}
  defp pair({key, value}, names) when is_atom(key), do: {:pair, key(key, names), tree(value, names)}
  defp pair({key, value}, names), do: {:pair, lines(tree(key, names), 0) <> " => ", tree(value, names)}

  defp key(key, names) do
    case names do
      %{^key => name} -> name <> " => "
      %{} -> inspect([{key, 0}]) |> String.slice(1..-3//1)
    end
  end

  defp key_of({:pair, key, _value}), do: key

  defp frame?({module, function, arity, location}) when is_atom(module) and is_atom(function) and is_list(location),
    do: is_integer(arity) or is_list(arity)

  defp frame?(_term), do: false

  defp lines(text, _indent) when is_binary(text), do: text
  defp lines({:pair, key, value}, indent), do: key <> lines(value, indent)

  defp lines({open, items, close} = tree, indent) do
    short = flat(tree)

    if String.length(short) + indent <= @width do
      short
    else
      margin = String.duplicate(" ", indent + 2)
      inner = Enum.map_join(items, ",\n", &(margin <> lines(&1, indent + 2)))
      open <> "\n" <> inner <> "\n" <> String.duplicate(" ", indent) <> close
    end
  end

  defp flat(text) when is_binary(text), do: text
  defp flat({:pair, key, value}), do: key <> flat(value)
  defp flat({open, items, close}), do: open <> Enum.map_join(items, ", ", &flat/1) <> close
end
