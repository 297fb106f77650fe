defmodule Patient do
  @moduledoc """
  Nodes that wait a minute for the answers of other nodes, in place of half a second.

  A drain begins without a node that has not answered by then, and leftovers are not offered to it. On a busy machine
  that can be any node. Such a node is for tests in which all others answer.
  """

  @ms 60_000
  @limits [{DurableHandoff.Deadline, :ask_ms, 2}, {DurableHandoff.Drain.Peers, :late_ms, 0}]

  @doc "Makes `node` one, for good."
  @spec make(node()) :: :ok
  def make(node), do: Cluster.call(node, __MODULE__, :install, [])

  @doc false
  def install do
    for {module, name, arity} <- @limits do
      {:ok, {_module, [abstract_code: {_version, forms}]}} = :beam_lib.chunks(:code.which(module), [:abstract_code])
      {:ok, ^module, binary} = forms |> Enum.map(&constant(&1, name, arity)) |> :compile.forms([])
      {:module, ^module} = :code.load_binary(module, ~c"made by a test", binary)
    end

    :ok
  end

  defp constant({:function, line, name, arity, _clauses}, name, arity) do
    parameters = List.duplicate({:var, line, :_}, arity)
    {:function, line, name, arity, [{:clause, line, parameters, [], [{:integer, line, @ms}]}]}
  end

  defp constant(form, _name, _arity), do: form
end
