defmodule DurableHandoff.RustNodes do
  @moduledoc false
  # The Rust nodes that have announced themselves: a table that every process may read, so a drain need not
  # ask a process.
  #
  # At most 64 Rust nodes. A node is in the table from its announcement until it withdraws, stops or is gone.
  # A newer announcement of the same node replaces the earlier one.
  #
  # The table belongs to `DurableHandoff.Wire.Endpoint`; the functions that change it are for that process
  # alone.

  alias DurableHandoff.{Log, Wire}

  @max_nodes 64
  @drain "drain"

  @enforce_keys [:monitors]
  defstruct @enforce_keys

  @type t :: %__MODULE__{monitors: %{reference() => node()}}
  @type rust_node :: {name :: node(), pid(), release :: String.t()}

  @doc "The Rust nodes, by name, that can coordinate this goal now. All of them can coordinate drains."
  @spec all(goal :: String.t()) :: [rust_node()]
  def all(goal \\ @drain) do
    Enum.sort(for {name, pid, release, goals} <- :ets.tab2list(__MODULE__), goal in goals, do: {name, pid, release})
  rescue
    # The endpoint does not run.
    ArgumentError -> []
  end

  @doc false
  @spec new() :: t()
  def new do
    :ets.new(__MODULE__, [:named_table, :protected, read_concurrency: true])
    %__MODULE__{monitors: %{}}
  end

  @doc false
  # `:full`: there are 64 others.
  @spec announced(t(), pid(), String.t(), [String.t()]) :: {:ok, t()} | :full
  def announced(nodes, pid, release, goals \\ []) do
    name = node(pid)
    row = {name, pid, release, Enum.uniq([@drain | goals])}

    cond do
      :ets.lookup(__MODULE__, name) == [row] ->
        welcome(pid)
        {:ok, nodes}

      map_size(nodes.monitors) >= @max_nodes and not :ets.member(__MODULE__, name) ->
        :full

      true ->
        nodes = withdrawn(nodes, name)
        monitor = Process.monitor(pid)
        :ets.insert(__MODULE__, row)
        text = "the Rust node #{name} (#{String.slice(release, 0, 64)}) offers to coordinate drains"
        Log.info(:rust_node_announced, nil, text, node: name, release: release)
        welcome(pid)
        {:ok, %{nodes | monitors: Map.put(nodes.monitors, monitor, name)}}
    end
  end

  defp welcome(pid), do: Wire.send(pid, Wire.welcome(self(), Wire.release()))

  @doc false
  @spec withdrawn(t(), node()) :: t()
  def withdrawn(nodes, name) do
    :ets.delete(__MODULE__, name)
    {gone, monitors} = Enum.split_with(nodes.monitors, fn {_monitor, other} -> other == name end)
    for {monitor, _name} <- gone, do: Process.demonitor(monitor, [:flush])

    if gone != [],
      do: Log.info(:rust_node_withdrawn, nil, "the Rust node #{name} coordinates no more drains", node: name)

    %{nodes | monitors: Map.new(monitors)}
  end

  @doc false
  @spec down(t(), reference()) :: {:ok, t()} | :unknown
  def down(nodes, monitor) do
    case nodes.monitors do
      %{^monitor => name} -> {:ok, withdrawn(nodes, name)}
      %{} -> :unknown
    end
  end
end
