defmodule DurableHandoff.Host.UnknownAnswer do
  @moduledoc false
  # Answers of DurableServer that this version of the library does not know.
  #
  # Guarantee: each kind of answer is logged once in a VM, with the answer, and never again: a drain of many
  # servers gets the same one many times. The kind of an answer is its shape and its atoms, so there are only as
  # many kinds as DurableServer has atoms for.

  alias DurableHandoff.{Apart, Log}

  @doc "Logs `answer` of `function`, unless one of its kind has been logged already (`:known`)."
  @spec note(function :: atom(), answer :: term()) :: :logged | :known
  def note(function, answer) do
    kind = {__MODULE__, function, kind(answer, 4)}

    if known?(kind) or not first?(kind) do
      :known
    else
      # A process that runs a move logs nothing (`DurableHandoff.Drain.Quiet`), so another process logs the line.
      Apart.run(fn ->
        text =
          "DurableServer #{version()} gave #{function} an answer that this library does not know; it counts as " <>
            "a failure of unknown cause: #{inspect(answer, limit: 10, printable_limit: 500)}"

        Log.warning(:unknown_answer, nil, text, function: function, answer: answer)
      end)

      :logged
    end
  end

  defp known?(kind), do: :persistent_term.get(kind, false)

  # Of processes that get the first ones at the same moment one has the lock, which is this node's. The others do not
  # wait for it.
  defp first?(kind) do
    note = fn -> not known?(kind) and :persistent_term.put(kind, true) == :ok end
    :global.trans({kind, self()}, note, [node()], 0) == true
  end

  defp version, do: to_string(Application.spec(:durable_server, :vsn) || "of unknown version")

  defp kind(term, 0), do: type(term)
  defp kind(atom, _depth) when is_atom(atom), do: atom
  defp kind(%{__struct__: struct}, _depth), do: struct

  defp kind(tuple, depth) when is_tuple(tuple) and tuple_size(tuple) <= 4,
    do: tuple |> Tuple.to_list() |> Enum.map(&kind(&1, depth - 1)) |> List.to_tuple()

  defp kind(term, _depth), do: type(term)

  defp type(term) when is_tuple(term), do: :tuple
  defp type(term) when is_list(term), do: :list
  defp type(term) when is_map(term), do: :map
  defp type(term) when is_binary(term), do: :binary
  defp type(term) when is_number(term), do: :number
  defp type(_term), do: :other
end
