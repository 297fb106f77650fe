defmodule DurableHandoff.Executor do
  @moduledoc """
  Who decides in a drain: which server goes where, when, and what to do after a failure.

  Guarantee: every executor gets the same configuration, servers, view and events and answers with the same
  orders; a drain does not depend on which one it is, nor on whether it stays.
  `DurableHandoff.Executor.Session` says how.

    * `:embedded`: the Rust engine inside this VM. Always there.
    * `{:node, name}`: the Rust node of that name, which coordinates all draining nodes, once it has announced itself here. Without it the
      embedded engine runs the drain, and a warning says so.
    * `:auto`: a Rust node when one has announced itself, else embedded.

  With several Rust nodes, every node of a cluster chooses the same one for the same storage, so that all drains of a storage
  meet in one place; when it goes, all choose the same next one, and only the drains of that storage change (rendezvous hashing).
  """

  require Logger

  alias DurableHandoff.{Agent, Telemetry}

  @doc "The Rust nodes that may run a drain of `supervisor` on the storage of that identity, the best first. None: embedded."
  @spec candidates(:auto | :embedded | {:node, node()}, atom(), String.t()) :: [Agent.offered()]
  def candidates(:embedded, _supervisor, _storage), do: []
  def candidates(:auto, _supervisor, storage), do: rank(Agent.nodes(), storage)

  def candidates({:node, name}, supervisor, _storage) do
    case Enum.filter(Agent.nodes(), fn {offered, _pid, _release} -> offered == name end) do
      [] ->
        Logger.warning(
          "[durable_handoff] #{inspect(supervisor)}: no Rust node #{inspect(name)} has announced itself; " <>
            "the engine in this VM runs the drain"
        )

        Telemetry.fallback(supervisor, {:no_executor, name})
        []

      offered ->
        offered
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
  @spec rank([Agent.offered()], String.t()) :: [Agent.offered()]
  def rank(offered, storage) do
    Enum.sort_by(offered, fn {name, _pid, _release} -> {:erlang.md5([storage, 0, Atom.to_string(name)]), name} end)
  end
end
