defmodule DurableHandoff.Rebalance.Watch do
  @moduledoc false
  # Rebalances by itself (option `rebalance`), one process beside each Drainer. Once a second it looks at the nodes
  # with a fresh heartbeat: name, release, when they started, mark and connection. When these have changed, and then
  # nothing has for `after_ms`, this node moves its excess, once. Every node does so by itself: each has its own
  # excess, and a node below its share has none. While a node drains or releases differ the engine moves nothing, and
  # this process tries again after `after_ms`. The start of this process counts as a change: other nodes may have come
  # in the same second.

  use GenServer

  alias DurableHandoff.{Clock, Drain, Host}

  @look_ms 1_000

  @doc """
  Starts for `supervisor`. `work` rebalances, and returns when that has ended.
  """
  @spec start_link({Host.name(), after_ms :: pos_integer(), work :: (() -> Drain.result() | {:error, term()})}) ::
          GenServer.on_start()
  def start_link({supervisor, after_ms, work}), do: GenServer.start_link(__MODULE__, {supervisor, after_ms, work})

  @impl true
  def init({supervisor, after_ms, work}) do
    Process.send_after(self(), :look, @look_ms)
    state = %{supervisor: supervisor, after_us: after_ms * 1_000, work: work}
    {:ok, Map.merge(state, %{nodes: nil, due?: true, since_us: Clock.now_us(), run: nil})}
  end

  @impl true
  def handle_info(:look, state) do
    Process.send_after(self(), :look, @look_ms)
    {:noreply, state |> look(nodes(state.supervisor), Clock.now_us()) |> run_when_due(Clock.now_us())}
  end

  def handle_info({:DOWN, monitor, :process, _pid, reason}, %{run: monitor} = state) do
    state = %{state | run: nil}
    {:noreply, if(again?(reason), do: %{state | due?: true, since_us: Clock.now_us()}, else: state)}
  end

  def handle_info(_unknown, state), do: {:noreply, state}

  defp look(%{nodes: nodes} = state, nodes, _now_us), do: state
  defp look(state, nodes, now_us), do: %{state | nodes: nodes, due?: true, since_us: now_us}

  defp run_when_due(%{due?: true, run: nil} = state, now_us) do
    if now_us - state.since_us >= state.after_us do
      work = state.work
      # A rebalance takes as long as it takes.
      {_pid, monitor} = spawn_monitor(fn -> exit({:rebalanced, work.()}) end)
      %{state | run: monitor, due?: false}
    else
      state
    end
  end

  defp run_when_due(state, _now_us), do: state

  # Servers that arrived lately are older then.
  defp again?({:rebalanced, {:ok, %{balance: %{} = balance} = report}}) do
    balance.idle in [:node_draining, :deploy_in_progress] or
      (is_map_key(report.left, :moved_lately) and report.moved < balance.excess)
  end

  defp again?({:rebalanced, {:ok, _report}}), do: false
  defp again?({:rebalanced, {:error, _draining_or_cordoned}}), do: true
  defp again?(_crashed), do: true

  defp nodes(supervisor) do
    view = Host.View.build(supervisor, [], [])
    oldest_ms = view.now_ms - Host.max_heartbeat_age_ms()
    own = Atom.to_string(node())

    for node <- view.nodes, node.stamp_ms >= oldest_ms do
      connected? = node.connected or node.name == own
      {node.name, node.generation, node.started_at_ms, node.draining, connected?}
    end
  end
end
