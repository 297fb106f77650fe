defmodule HandoffDemo.Leftovers do
  @moduledoc """
  Finds what a drain must not leave behind: processes and tables of the library on a node, and reservations in
  the store.
  """

  @doc """
  The library's processes and tables on this node, by name; the same list before and after means that
  nothing was left.
  """
  @spec ours() :: [String.t()]
  def ours, do: Enum.sort(processes() ++ tables())

  @doc """
  Every reservation in the simulated store of this node: the object's key, and the ms until it expires (0:
  expired).
  """
  @spec reservations() :: [{String.t(), non_neg_integer()}]
  def reservations do
    now = System.system_time(:millisecond)

    for key <- SimulatedStore.keys(node()),
        not String.contains?(key, "__nodes/"),
        %{body: %{meta: %{restart_attempt_node: reserved_for, restart_attempt_ttl: until}}} <-
          [SimulatedStore.peek(node(), key)],
        reserved_for != nil,
        do: {key, max(until - now, 0)}
  end

  defp processes do
    for pid <- Process.list(), module = initial_module(pid), ours?(module), do: "process " <> inspect(module)
  end

  defp initial_module(pid) do
    with {:dictionary, dictionary} <- Process.info(pid, :dictionary),
         {module, _function, _arity} <- Keyword.get(dictionary, :"$initial_call") do
      module
    else
      _gone_or_plain -> nil
    end
  end

  defp tables,
    do: for(table <- :ets.all(), name = :ets.info(table, :name), table_of_ours?(name), do: "table " <> inspect(name))

  # :undefined for a table that was deleted meanwhile.
  defp table_of_ours?(name), do: ours?(name) or String.contains?(Atom.to_string(name), "_handoff_")

  defp ours?(name), do: String.starts_with?(Atom.to_string(name), "Elixir.DurableHandoff")
end
