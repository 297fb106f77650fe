defmodule DurableHandoff.Host.Count do
  @moduledoc false
  # Asks other nodes for current facts about themselves: how many servers they have, whether they go down, and
  # which modules they lack.
  #
  # Guarantee: asking takes no longer than the time given, and has no effect except that the asked node loads
  # the modules. A node that does not answer (not connected, too slow, without this library or with a version
  # that does not know the question) is missing from the result; the planner then uses its heartbeat. A node
  # without such a supervisor takes no servers, even if it has a heartbeat: it is from an earlier life of the
  # node, or of a supervisor of another name with the same prefix. Nor does a node whose supervisor has
  # another prefix: the registry also has its heartbeats, but it cannot find the objects of these servers. The
  # answers are not checked here: `DurableHandoff.Host.View` does that.

  alias DurableHandoff.{Apart, Host, Status}

  @absent %{absent: true, stopping: true}

  @typedoc """
  A node's answer: its wall clock in milliseconds, its number of servers, DurableServer's `current_capacity`;
  `stopping`: the node goes down, or its supervisor is marked; `missing`: the requested modules that it cannot
  load; `prefix`: the prefix of its servers' objects, nil if unknown; `storage`: its
  `DurableHandoff.Host.StorageIdentity`. Earlier releases do not send the last two.
  """
  @type answer :: %{
          at_ms: integer(),
          servers: non_neg_integer(),
          capacity: map() | nil,
          stopping: boolean(),
          missing: [module()],
          prefix: nil | String.t(),
          storage: nil | String.t()
        }

  @typedoc "The answers by node name. `absent`: no supervisor of that name and prefix runs on that node."
  @type t :: %{String.t() => answer() | %{absent: true, stopping: true}}

  @doc """
  Asks `nodes` about their supervisor `name`, and whether they can load `modules`; `timeout_ms` is for all
  nodes together.
  """
  @spec ask(Host.name(), [module()], [node()], timeout_ms :: pos_integer()) :: t()
  def ask(name, modules, nodes, timeout_ms), do: name |> ask_each(modules, nodes, timeout_ms) |> elem(0)

  @doc """
  The same, with the names of the nodes that did not answer, in time or before their connection was lost. A node
  without this library does answer, with an error.
  """
  @spec ask_each(Host.name(), [module()], [node()], timeout_ms :: pos_integer()) :: {t(), late :: [String.t()]}
  def ask_each(name, modules, nodes, timeout_ms) do
    # A call waits while the connection to its node is full, so each is made by a process of its own.
    ask = &hd(:erpc.multicall([&1], __MODULE__, :here, [name, modules], timeout_ms))
    answers = Apart.run_each(nodes, ask, timeout_ms)
    prefix = prefix(name)

    known =
      for {node, {:ok, {:ok, answer}}} <- answers,
          answer = known(answer, prefix),
          into: %{},
          do: {Atom.to_string(node), answer}

    {known, for({node, answer} <- answers, late?(answer), do: Atom.to_string(node))}
  end

  defp late?({:ok, {:error, {:erpc, why}}}), do: why in [:timeout, :noconnection]
  defp late?(answer), do: answer == {:died, :timeout}

  defp known(%{at_ms: _, prefix: other}, prefix) when other != nil and prefix != nil and other != prefix, do: @absent
  defp known(%{at_ms: _} = answer, _prefix), do: answer
  defp known(nil, _prefix), do: @absent
  defp known(_other, _prefix), do: nil

  defp prefix(name), do: with({_backend, prefix} <- Host.storage(name), do: prefix)

  @doc "The nodes that answered that no such supervisor runs there."
  @spec absent(t()) :: [String.t()]
  def absent(answers), do: for({name, %{absent: true}} <- answers, do: name)

  @doc "The nodes that answered that they take no servers, also those without such a supervisor."
  @spec stopping(t()) :: [String.t()]
  def stopping(answers), do: for({name, %{stopping: true}} <- answers, do: name)

  @doc "The nodes that answered that their supervisor has another store than this node's, by its identity `own`."
  @spec elsewhere(t(), own :: nil | String.t()) :: [String.t()]
  def elsewhere(answers, own), do: for({name, %{storage: other}} <- answers, other not in [nil, own], do: name)

  @doc "This node's answer, nil when the supervisor `name` is not up."
  @spec here(Host.name(), [module()]) :: answer() | nil
  def here(name, modules) do
    # The time is read first, so that a server that arrives during the count may be counted twice but is never
    # missed.
    at_ms = System.system_time(:millisecond)
    stopping = Status.marked?(name)

    cond do
      Host.whereis(name) ->
        missing = if stopping, do: [], else: Enum.reject(modules, &Code.ensure_loaded?/1)
        answer = %{at_ms: at_ms, servers: Host.count(name), capacity: Host.capacity(name)}
        storage = Host.StorageIdentity.of(Host.storage(name))
        Map.merge(answer, %{stopping: stopping, missing: missing, prefix: prefix(name), storage: storage})

      # The supervisor has stopped already.
      stopping ->
        %{at_ms: at_ms, servers: 0, capacity: nil, stopping: true, missing: [], prefix: nil, storage: nil}

      true ->
        nil
    end
  end
end
