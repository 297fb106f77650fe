defmodule HandoffDemo.Recorder do
  @moduledoc """
  Records when server processes of this node start, stop and end, and sends that to the driver in batches.

  Times are microseconds of the wall clock, read in the recorded process. All nodes of the demo share one
  machine and so one clock. The driver gets everything that was recorded before `flush/0` or before this
  process is stopped.
  """

  use GenServer, shutdown: 30_000

  alias HandoffDemo.Control

  # Short, because the unsent records of a killed node are lost, and a life without its end would seem to
  # overlap the next one.
  @batch_ms 5

  # Records that have not been sent, latest first; and the number of each server by its monitor.
  defstruct records: [], monitors: %{}

  @typedoc "What happened to a server. `:down` is a graceful end of its process, `:failed` any other end."
  @type moment :: :init | :terminate | :down | :failed

  @doc false
  @spec start_link(term()) :: GenServer.on_start()
  def start_link(_opts), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc """
  Records that the calling process, one of server number `index`, starts or stops, and its counter. Never
  waits.
  """
  @spec record(:init | :terminate, non_neg_integer(), non_neg_integer()) :: :ok
  def record(moment, index, counter),
    do: GenServer.cast(__MODULE__, {:record, moment, index, self(), :os.system_time(:microsecond), counter})

  @doc "The servers that have a process on this node now, each as often as it has one."
  @spec running() :: [non_neg_integer()]
  def running, do: GenServer.call(__MODULE__, :running)

  @doc "Returns when everything recorded so far has been sent to the driver."
  @spec flush() :: :ok
  def flush, do: GenServer.call(__MODULE__, :flush, :infinity)

  @impl true
  def init(nil) do
    # For terminate/2, which sends the last records of a node that stops.
    Process.flag(:trap_exit, true)
    {:ok, %__MODULE__{}}
  end

  @impl true
  def handle_cast({:record, moment, index, pid, at_us, counter}, state) do
    state = if moment == :init, do: monitor(state, pid, index), else: state
    {:noreply, add(state, moment, index, pid, at_us, counter)}
  end

  @impl true
  def handle_call(:running, _from, state), do: {:reply, Map.values(state.monitors), state}
  def handle_call(:flush, _from, state), do: {:reply, :ok, send_batch(state)}

  @impl true
  def handle_info(:send_batch, state), do: {:noreply, send_batch(state)}

  def handle_info({:DOWN, ref, :process, pid, reason}, state) do
    {index, monitors} = Map.pop!(state.monitors, ref)
    {:noreply, add(%{state | monitors: monitors}, ended(reason), index, pid, :os.system_time(:microsecond), 0)}
  end

  @impl true
  def terminate(_reason, state), do: send_batch(state)

  # DurableServer stores the state of a server that it stops. A server that has lost its object ends with
  # another reason.
  defp ended({:shutdown, {:durable, {:fatal_exit, _reason}}}), do: :failed
  defp ended({:shutdown, _reason}), do: :down
  defp ended(reason) when reason in [:normal, :shutdown], do: :down
  defp ended(_reason), do: :failed

  defp monitor(state, pid, index), do: put_in(state.monitors[Process.monitor(pid)], index)

  defp add(state, moment, index, pid, at_us, counter) do
    if state.records == [], do: Process.send_after(self(), :send_batch, @batch_ms)
    process = pid |> :erlang.pid_to_list() |> List.to_string()
    %{state | records: [{moment, index, process, at_us, counter} | state.records]}
  end

  defp send_batch(%{records: []} = state), do: state

  defp send_batch(state) do
    Control.send_event({:records, Enum.reverse(state.records)})
    %{state | records: []}
  end
end
