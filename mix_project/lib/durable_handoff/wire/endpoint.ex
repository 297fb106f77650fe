defmodule DurableHandoff.Wire.Endpoint do
  @moduledoc false
  # The process that Rust nodes and operators send to. One for each VM.
  #
  # Guarantees:
  #
  #   * It never waits: operators' requests run in processes of their own, at most 32 at a time.
  #   * It only listens. A VM without a Rust node in its cluster pays one idle process and two empty tables.
  #   * A message that it does not understand changes nothing and is counted (`info/0`). A message of another
  #     version is refused with that reason, if it names a process to answer; it is logged when the node's version
  #     is new or has changed.

  use GenServer

  alias DurableHandoff.{Log, Operator, RustNodes, Wire}

  @max_requests 32
  # Nodes of which it remembers that it has warned of their version.
  @max_versions 64

  # The function of Operator that answers a request.
  @requests %{drain_request: :drain, cordon_request: :cordon, move_request: :move, rebalance_request: :rebalance}

  @enforce_keys [:nodes]
  defstruct [:nodes, requests: %{}, versions: %{}]

  @doc "Started by the application. The name it registers is part of the protocol."
  @spec start_link(term()) :: GenServer.on_start()
  def start_link(_arguments), do: GenServer.start_link(__MODULE__, [], name: Wire.endpoint_process())

  @doc """
  Messages since it started that were not understood, of another version, or too many; and the Rust nodes.
  """
  @spec info() :: %{
          nodes: [RustNodes.rust_node()],
          ignored: non_neg_integer(),
          version: non_neg_integer(),
          full: non_neg_integer()
        }
  def info do
    counts = for count <- [:ignored, :version, :full], into: %{}, do: {count, counter(count)}
    Map.put(counts, :nodes, RustNodes.all())
  end

  @impl true
  def init([]) do
    :ets.new(__MODULE__, [:named_table, :protected])
    {:ok, %__MODULE__{nodes: RustNodes.new()}}
  end

  # It takes no calls: the caller exits.
  @impl true
  def handle_call(_unknown, _from, state), do: {:noreply, count(state, :ignored)}

  @impl true
  def handle_cast(_unknown, state), do: {:noreply, count(state, :ignored)}

  @impl true
  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state) when is_map_key(state.requests, monitor),
    do: {:noreply, %{state | requests: Map.delete(state.requests, monitor)}}

  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state) do
    case RustNodes.down(state.nodes, monitor) do
      {:ok, nodes} -> {:noreply, %{state | nodes: nodes}}
      :unknown -> {:noreply, count(state, :ignored)}
    end
  end

  def handle_info(message, state) do
    case Wire.read(message) do
      {:ok, received} -> {:noreply, receive_message(received, state)}
      {:error, {:version, got}} -> {:noreply, other_version(state, message, got)}
      _not_for_us -> {:noreply, count(state, :ignored)}
    end
  end

  # An announcement from this node itself cannot come from a Rust node, and a local pid would not tell when a
  # connection is lost.
  defp receive_message({:announce, pid, _facts}, state) when node(pid) == node(), do: count(state, :ignored)

  defp receive_message({:announce, pid, %{accepting: true, release: release, goals: goals}}, state) do
    case RustNodes.announced(state.nodes, pid, release, goals) do
      {:ok, nodes} -> %{state | nodes: nodes}
      :full -> count(state, :full)
    end
  end

  defp receive_message({:announce, pid, %{accepting: false}}, state),
    do: %{state | nodes: RustNodes.withdrawn(state.nodes, node(pid))}

  # A refusal does not name its sender. The Rust node also withdraws its announcement.
  defp receive_message({:refuse, _id, reason}, state) do
    text = "a Rust node refused a message of this node: #{inspect(reason, limit: 10)}"
    Log.warning(:rust_node_refused, nil, text, reason: reason)
    state
  end

  defp receive_message({:describe, request, from}, state),
    do: answer(state, request, from, fn -> Operator.describe(request, from) end)

  defp receive_message({kind, request, from, what}, state) when is_map_key(@requests, kind),
    do: answer(state, request, from, fn -> apply(Operator, @requests[kind], [request, from, what]) end)

  defp receive_message(_for_a_drain, state), do: count(state, :ignored)

  defp answer(state, request, from, _answer) when map_size(state.requests) >= @max_requests do
    state = count(state, :full)
    Wire.send(from, Wire.refuse(request, {:full, "requests", @max_requests}))
    state
  end

  defp answer(state, request, _from, answer) do
    {_pid, monitor} = spawn_monitor(answer)
    %{state | requests: Map.put(state.requests, monitor, request)}
  end

  defp other_version(state, message, got) do
    state = count(state, :version)

    case message |> Tuple.to_list() |> Enum.take(8) |> Enum.find(&is_pid/1) do
      nil ->
        state

      from ->
        Wire.send(from, Wire.refuse_version(got))
        warn_of_version(state, node(from), got)
    end
  end

  # A Rust node of another version repeats its announcement every two seconds.
  defp warn_of_version(%{versions: warned} = state, node, got) do
    version = :erlang.phash2(got)

    if warned[node] == version do
      state
    else
      text = "#{node} speaks another version of the protocol: #{inspect(got, limit: 5)}"
      Log.warning(:rust_node_version, nil, text, node: node, version: got)
      warned = if map_size(warned) < @max_versions, do: warned, else: %{}
      %{state | versions: Map.put(warned, node, version)}
    end
  end

  defp count(state, what) do
    :ets.update_counter(__MODULE__, what, 1, {what, 0})
    state
  end

  defp counter(what) do
    :ets.lookup_element(__MODULE__, what, 2)
  rescue
    ArgumentError -> 0
  end
end
