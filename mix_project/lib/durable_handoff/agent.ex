defmodule DurableHandoff.Agent do
  @moduledoc """
  Knows which Rust nodes offer to run drains, and answers operators. One process a VM, under this name.

  Guarantees:

    * It never waits: questions that need the host, and drains, run in processes of their own, at most 32 at a time.
    * It only listens. A VM without a Rust node in its cluster pays one idle process and an empty table.
    * It holds at most 64 Rust nodes. One is offered from its announcement until it takes it back, stops, or is gone; a node whose name is
      offered already is replaced by its newer announcement.
    * What it cannot understand changes nothing and is counted (`info/0`); a message of another version is answered with a refusal that
      says so, where it names a process to answer.

  A drain reads the offer (`nodes/0`) without asking this process, so neither depends on the other.
  """

  use GenServer

  require Logger

  alias DurableHandoff.Agent.Operator
  alias DurableHandoff.{Outside, Wire}

  @max_nodes 64
  @max_requests 32

  @type offered :: {name :: node(), pid(), release :: String.t()}

  @doc "Started by the application."
  @spec start_link(term()) :: GenServer.on_start()
  def start_link(_arguments), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "The Rust nodes that take drains now, by name."
  @spec nodes() :: [offered()]
  def nodes do
    Enum.sort(for {{:node, name}, pid, release} <- :ets.tab2list(__MODULE__), do: {name, pid, release})
  rescue
    ArgumentError -> []
  end

  @doc "What it knows and what it passed over since it started: messages not understood, of another version, and too many."
  @spec info() :: %{nodes: [offered()], ignored: non_neg_integer(), version: non_neg_integer(), full: non_neg_integer()}
  def info do
    counts = for count <- [:ignored, :version, :full], into: %{}, do: {count, counter(count)}
    Map.put(counts, :nodes, nodes())
  end

  @impl true
  def init([]) do
    :ets.new(__MODULE__, [:named_table, :protected, read_concurrency: true])
    {:ok, %{monitors: %{}, requests: %{}}}
  end

  # It takes no calls: the caller exits.
  @impl true
  def handle_call(_unknown, _from, state), do: {:noreply, ignored(state)}

  @impl true
  def handle_cast(_unknown, state), do: {:noreply, ignored(state)}

  @impl true
  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state) when is_map_key(state.requests, monitor),
    do: {:noreply, %{state | requests: Map.delete(state.requests, monitor)}}

  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state) when is_map_key(state.monitors, monitor),
    do: {:noreply, withdraw(state, state.monitors[monitor])}

  def handle_info(message, state) do
    case Wire.read(message) do
      {:ok, received} -> {:noreply, take(received, state)}
      {:error, {:version, got}} -> {:noreply, other_version(state, message, got)}
      _not_for_us -> {:noreply, ignored(state)}
    end
  end

  defp take({:announce, pid, %{accepting: true, release: release}}, state), do: offer(state, pid, release)
  defp take({:announce, pid, %{accepting: false}}, state), do: withdraw(state, node(pid))

  # Only the drains of that node know the sender of a refusal. The announcement that withdraws the offer comes
  # with it.
  defp take({:refuse, _id, reason}, state) do
    Logger.warning("[durable_handoff] a Rust node refused a message of this node: #{inspect(reason, limit: 10)}")
    state
  end

  defp take({:describe, request, from}, state), do: answer(state, request, from, &Operator.describe/2, [])
  defp take({:drain_request, request, from, what}, state), do: answer(state, request, from, &Operator.drain/3, [what])
  defp take(_for_a_drain, state), do: ignored(state)

  # A node that says it runs here is lying: it could not be monitored across a connection.
  defp offer(state, pid, _release) when node(pid) == node(), do: ignored(state)

  defp offer(state, pid, release) do
    name = node(pid)

    cond do
      match?([{_key, ^pid, ^release}], :ets.lookup(__MODULE__, {:node, name})) ->
        welcome(pid)
        state

      map_size(state.monitors) >= @max_nodes and not :ets.member(__MODULE__, {:node, name}) ->
        count(:full)
        state

      true ->
        state = withdraw(state, name)
        monitor = Process.monitor(pid)
        :ets.insert(__MODULE__, {{:node, name}, pid, release})
        Logger.info("[durable_handoff] the Rust node #{name} (#{printable(release)}) offers to coordinate drains")
        welcome(pid)
        %{state | monitors: Map.put(state.monitors, monitor, name)}
    end
  end

  defp welcome(pid), do: Outside.send(pid, Wire.welcome(self(), release()))

  defp withdraw(state, name) do
    :ets.delete(__MODULE__, {:node, name})
    {gone, monitors} = Enum.split_with(state.monitors, fn {_monitor, other} -> other == name end)
    for {monitor, _name} <- gone, do: Process.demonitor(monitor, [:flush])
    if gone != [], do: Logger.info("[durable_handoff] the Rust node #{name} coordinates no more drains")
    %{state | monitors: Map.new(monitors)}
  end

  defp answer(state, request, from, _answer, _arguments) when map_size(state.requests) >= @max_requests do
    count(:full)
    Outside.send(from, Wire.refuse(request, {:full, "requests", @max_requests}))
    state
  end

  defp answer(state, request, from, answer, arguments) do
    {_pid, monitor} = spawn_monitor(fn -> apply(answer, [request, from | arguments]) end)
    %{state | requests: Map.put(state.requests, monitor, request)}
  end

  defp other_version(state, message, got) do
    count(:version)

    with from when is_pid(from) <- message |> Tuple.to_list() |> Enum.take(8) |> Enum.find(&is_pid/1) do
      Outside.send(from, Wire.refuse_version(got))

      Logger.warning(
        "[durable_handoff] #{node(from)} speaks another version of the protocol: #{inspect(got, limit: 5)}"
      )
    end

    state
  end

  defp ignored(state) do
    count(:ignored)
    state
  end

  defp count(what), do: :ets.update_counter(__MODULE__, {:count, what}, 1, {{:count, what}, 0})

  defp counter(what) do
    :ets.lookup_element(__MODULE__, {:count, what}, 2)
  rescue
    ArgumentError -> 0
  end

  defp printable(text), do: String.slice(text, 0, 64)

  @doc false
  @spec release() :: String.t()
  def release do
    with vsn when is_list(vsn) <- Application.spec(:durable_handoff, :vsn),
         do: List.to_string(vsn),
         else: (_ -> "0.0.0")
  end
end
