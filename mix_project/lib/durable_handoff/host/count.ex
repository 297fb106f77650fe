defmodule DurableHandoff.Host.Count do
  @moduledoc """
  How many servers other nodes have right now.

  Guarantee: asking takes no longer than the time given, changes nothing, and a node that cannot answer (not connected, too slow,
  without this library) is missing from the result; the planner then goes by its heartbeat. The answers are as the nodes gave them:
  `DurableHandoff.Host.View` checks them.
  """

  alias DurableHandoff.Host

  @typedoc "By node name: wall-clock milliseconds of that node, number of servers, the host's `current_capacity`."
  @type t :: %{String.t() => %{at_ms: integer(), servers: non_neg_integer(), capacity: map() | nil}}

  @doc "Asks `nodes` for the numbers of their supervisor `name`; `timeout_ms` is for all of them together."
  @spec ask(Host.name(), [node()], timeout_ms :: pos_integer()) :: t()
  def ask(name, nodes, timeout_ms) do
    answers = :erpc.multicall(nodes, __MODULE__, :here, [name], timeout_ms)
    for {node, {:ok, %{at_ms: _} = count}} <- Enum.zip(nodes, answers), into: %{}, do: {Atom.to_string(node), count}
  end

  @doc "This node's answer, nil when the supervisor `name` is not up."
  @spec here(Host.name()) :: %{at_ms: integer(), servers: non_neg_integer(), capacity: map() | nil} | nil
  def here(name) do
    # The time first: what arrives while we count may be counted twice, never not at all.
    at_ms = System.system_time(:millisecond)
    if Host.whereis(name), do: %{at_ms: at_ms, servers: Host.count(name), capacity: Host.capacity(name)}
  end
end
