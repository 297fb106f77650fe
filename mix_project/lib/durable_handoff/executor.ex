defmodule DurableHandoff.Executor do
  @moduledoc false
  # The option `executor`: what decides which server goes where, when, and what happens after a failure.
  #
  # Guarantee: every executor gets the same configuration, servers, view and events and answers with the same
  # orders. A drain does not depend on which one it has, nor on whether it is lost
  # (`DurableHandoff.Executor.Session`).
  #
  #   * `:embedded`: the Rust engine inside this VM. Always there.
  #   * `{:node, name}`: the Rust node of that name, which coordinates all draining nodes, once it has
  #     announced itself here. Without it the embedded engine runs the drain, and a warning says so.
  #   * `:auto`: a Rust node when one has announced itself, else embedded.
  #
  # With several Rust nodes, every node of a cluster chooses the same one for the same storage (rendezvous
  # hashing), so that all drains of a storage meet in one place. When it is lost, all choose the same next
  # one, and only the drains of that storage change.

  alias DurableHandoff.{Log, RustNodes, Telemetry}

  @doc """
  The Rust nodes that may run a `goal` (`"drain"` or `"rebalance"`) of `supervisor`, in the order to ask them;
  none for `:embedded`. `storage` is the identity of the supervisor's storage.
  """
  @spec rust_nodes(:auto | :embedded | {:node, node()}, goal :: String.t(), atom(), String.t()) ::
          [RustNodes.rust_node()]
  def rust_nodes(:embedded, _goal, _supervisor, _storage), do: []
  def rust_nodes(:auto, goal, _supervisor, storage), do: rank(RustNodes.all(goal), storage)

  def rust_nodes({:node, name}, goal, supervisor, _storage) do
    case Enum.filter(RustNodes.all(goal), fn {other, _pid, _release} -> other == name end) do
      [] ->
        text = "no Rust node #{inspect(name)} that can run this has announced itself; the engine in this VM runs it"
        Log.warning(:no_executor, supervisor, text, node: name)

        Telemetry.fallback(supervisor, {:no_executor, name})
        []

      found ->
        found
    end
  end

  @doc """
  The order in which all nodes ask Rust nodes to drain a storage.

      iex> nodes = for name <- [:a@h, :b@h, :c@h], do: {name, self(), "1.0"}
      iex> [{first, _, _} | rest] = DurableHandoff.Executor.rank(nodes, "storage")
      iex> DurableHandoff.Executor.rank(Enum.shuffle(nodes), "storage") |> hd() |> elem(0) == first
      true
      iex> DurableHandoff.Executor.rank(tl(DurableHandoff.Executor.rank(nodes, "storage")), "storage") == rest
      true
  """
  @spec rank([RustNodes.rust_node()], String.t()) :: [RustNodes.rust_node()]
  def rank(nodes, storage) do
    Enum.sort_by(nodes, fn {name, _pid, _release} -> {:erlang.md5([storage, 0, Atom.to_string(name)]), name} end)
  end
end
