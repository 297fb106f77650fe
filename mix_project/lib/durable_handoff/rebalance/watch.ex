defmodule DurableHandoff.Rebalance.Watch do
  @moduledoc false
  # Rebalances by itself (option `rebalance`), one process beside each Drainer. Once a second it looks at the nodes
  # with a fresh heartbeat: name, release, when they started, mark and connection. When these have changed, and then
  # nothing has for `after_ms`, this node moves its excess, once. Every node does so by itself: each has its own
  # excess, and a node below its share has none. While a node drains or releases differ the engine moves nothing, and
  # a rebalance can end before it has moved all. Then this process tries again after `after_ms`, and twice as long each
  # time that nothing was moved, up to an hour: a node can stay cordoned for days. The start of this process counts as a
  # change: other nodes may have come in the same second.

  use GenServer

  alias DurableHandoff.{Clock, Drain, Host, Log, Report}

  @look_ms 1_000
  @longest_us 3_600_000_000

  @enforce_keys [:supervisor, :work, :timing]
  defstruct [:supervisor, :work, :timing, :run]

  @doc """
  Starts for `supervisor`. `work` rebalances, and returns when that has ended.
  """
  @spec start_link({Host.name(), after_ms :: pos_integer(), work :: (() -> Drain.result() | {:error, term()})}) ::
          GenServer.on_start()
  def start_link({supervisor, after_ms, work}), do: GenServer.start_link(__MODULE__, {supervisor, after_ms, work})

  @impl true
  def init({supervisor, after_ms, work}) do
    Process.send_after(self(), :look, @look_ms)
    {:ok, %__MODULE__{supervisor: supervisor, work: work, timing: timing(after_ms, Clock.now_us())}}
  end

  @impl true
  def handle_info(:look, state) do
    Process.send_after(self(), :look, @look_ms)
    timing = look(state.timing, nodes(state.supervisor), Clock.now_us())
    {:noreply, run_when_due(%{state | timing: timing}, Clock.now_us())}
  end

  def handle_info({:DOWN, monitor, :process, _pid, reason}, %{run: monitor} = state),
    do: {:noreply, %{state | run: nil, timing: ended(state.timing, reason, Clock.now_us())}}

  def handle_info(unexpected, state) do
    Log.unexpected(state.supervisor, unexpected)
    {:noreply, state}
  end

  defp run_when_due(%{run: nil, timing: timing, work: work} = state, now_us) do
    if due?(timing, now_us) do
      # No time limit here: the rebalance has its own.
      {_pid, monitor} = spawn_monitor(fn -> exit({:rebalanced, work.()}) end)
      %{state | run: monitor, timing: %{timing | due?: false}}
    else
      state
    end
  end

  defp run_when_due(state, _now_us), do: state

  @doc false
  # When the next rebalance is due. Pure; all times are microseconds of one clock.
  def timing(after_ms, now_us),
    do: %{nodes: nil, after_us: after_ms * 1_000, wait_us: after_ms * 1_000, due?: true, since_us: now_us}

  @doc false
  def look(%{nodes: nodes} = timing, nodes, _now_us), do: timing
  def look(timing, nodes, now_us), do: due(%{timing | nodes: nodes, wait_us: timing.after_us}, now_us)

  @doc false
  def due?(timing, now_us), do: timing.due? and now_us - timing.since_us >= timing.wait_us

  @doc false
  # `reason` is the exit reason of the process of a rebalance. A change of the cluster during the rebalance is
  # due at its own time.
  def ended(timing, reason, now_us) do
    wait_us =
      cond do
        timing.due? or moved?(reason) -> timing.after_us
        true -> max(min(timing.wait_us * 2, @longest_us), timing.after_us)
      end

    if again?(reason), do: due(%{timing | wait_us: wait_us}, now_us), else: timing
  end

  defp due(timing, now_us), do: %{timing | due?: true, since_us: now_us}

  defp moved?(reason), do: match?({:rebalanced, {:ok, %{moved: moved}}} when moved > 0, reason)

  # What these reasons kept here can move later: servers that arrived recently will be older then. A rebalance that was
  # cancelled is not continued.
  defp again?({:rebalanced, {:ok, %{balance: %{} = balance} = report}}) do
    early? = report.ended in [:deadline, :failures] or is_map_key(report.left, :moved_lately)
    passing? = balance.idle in [:node_draining, :deploy_in_progress, :unknown_load, :coordinator_lost]
    passing? or (early? and Report.above_share(report) > 0)
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
