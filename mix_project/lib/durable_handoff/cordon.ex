defmodule DurableHandoff.Cordon do
  @moduledoc false
  # Cordons and uncordons this node for one supervisor. One process beside each Drainer.
  #
  # A cordoned node takes no servers: other nodes send none, their drains and DurableServer's own placement
  # choose other nodes, and it starts none itself (`DurableHandoff.Host.Mark`). Servers that run there
  # continue to run. Connected nodes learn of the change within milliseconds; the others with the next
  # heartbeat, within ten seconds as DurableServer is configured by default. A drain that runs on another node
  # asks once a second besides.
  #
  # This process stays a member of the heartbeat group until DurableServer's own heartbeat has the same mark.

  use GenServer

  alias DurableHandoff.{Host, Leftovers, Log, Status, Telemetry}
  alias DurableHandoff.Host.Mark

  @check_ms 500
  # The highest number of joins per change: one for the change, one for a heartbeat that was being written
  # meanwhile, and one to spare. If the user's `heartbeat_meta` always contains "draining", this process gives
  # up after these.
  @most_joins 3

  @enforce_keys [:supervisor]
  # `host`: the monitor of DurableServer's supervisor, whose restart ends a cordon.
  defstruct [:supervisor, :timer, :host, joins: 0]

  @doc "Starts the process of `supervisor`."
  @spec start_link(Host.name()) :: GenServer.on_start()
  def start_link(supervisor), do: GenServer.start_link(__MODULE__, supervisor, name: name(supervisor))

  @doc "Cordons this node. Returns `:ok` also if it is already cordoned or marked for good."
  @spec cordon(Host.name(), timeout()) :: :ok | {:error, :no_drainer | :supervisor_not_running | :timeout}
  def cordon(supervisor, timeout_ms \\ :infinity), do: call(supervisor, :cordon, timeout_ms)

  @doc """
  Undoes `cordon/1`. Returns `:ok` also if the node is not cordoned. Errors: `:stopping` (the mark is final),
  `:draining` (a drain runs here), `:no_drainer`, `:supervisor_not_running`.
  """
  @spec uncordon(Host.name()) :: :ok | {:error, :stopping | :draining | :no_drainer | :supervisor_not_running}
  def uncordon(supervisor), do: call(supervisor, :uncordon, :infinity)

  defp call(supervisor, request, timeout_ms) do
    GenServer.call(name(supervisor), request, timeout_ms)
  catch
    :exit, {:timeout, {GenServer, :call, _arguments}} -> {:error, :timeout}
    :exit, {_reason, {GenServer, :call, _arguments}} -> {:error, :no_drainer}
  end

  @impl true
  def init(supervisor) do
    state = %__MODULE__{supervisor: supervisor}

    # An earlier process may have crashed in the middle of a change. Its group membership, which told the
    # other nodes of the mark, ended with it.
    case Mark.repair(supervisor) do
      {:ok, :cordoned} ->
        {:ok, state |> watch() |> look_later()}

      {:ok, :final} ->
        {:ok, state}

      _none ->
        # Or it ended with DurableServer's supervisor, and so with its cordon.
        if Status.cordon_told?(supervisor), do: ended_with_host(supervisor)
        {:ok, state}
    end
  end

  @impl true
  def handle_call(:cordon, _from, %{supervisor: supervisor} = state) do
    before = Mark.mark(supervisor)

    case Mark.cordon(supervisor) do
      {:ok, mark} when mark != before ->
        Leftovers.Message.stand_down(supervisor)
        text = "this node is cordoned: it takes no servers, and what runs goes on running, until uncordon/1"
        Log.info(:cordoned, supervisor, text)
        Status.put_cordon_told(supervisor, true)
        Telemetry.mark(supervisor, mark)
        {:reply, :ok, announce(watch(%{state | joins: 0}))}

      {:ok, _as_before} ->
        {:reply, :ok, state}

      error ->
        {:reply, error, state}
    end
  end

  def handle_call(:uncordon, _from, %{supervisor: supervisor} = state) do
    cond do
      Status.stopping?(supervisor) -> {:reply, {:error, :stopping}, state}
      Status.draining?(supervisor) -> {:reply, {:error, :draining}, state}
      true -> uncordon(Mark.mark(supervisor), state)
    end
  end

  @impl true
  def handle_info(:look, state), do: {:noreply, announce(%{state | timer: nil})}

  def handle_info({:DOWN, host, :process, _pid, _reason}, %{host: host, supervisor: supervisor} = state) do
    ended_with_host(supervisor)
    {:noreply, %{state | host: nil}}
  end

  # Messages to the heartbeat group reach all members, including this process.
  def handle_info(_not_ours, state), do: {:noreply, state}

  defp uncordon(before, %{supervisor: supervisor} = state) do
    case Mark.uncordon(supervisor) do
      {:ok, :none} when before == :cordoned ->
        ended(supervisor, "this node is not cordoned any more: it takes servers again")
        Leftovers.Message.resumed(supervisor)
        if state.host, do: Process.demonitor(state.host, [:flush])
        {:reply, :ok, announce(%{state | joins: 0, host: nil})}

      {:ok, :none} ->
        {:reply, :ok, state}

      {:ok, _final} ->
        {:reply, {:error, :stopping}, state}

      error ->
        {:reply, error, state}
    end
  end

  defp ended_with_host(supervisor) do
    if not Status.stopping?(supervisor),
      do: ended(supervisor, "DurableServer's supervisor ended, and with it the cordon")
  end

  defp ended(supervisor, text) do
    Log.info(:uncordoned, supervisor, text)
    Telemetry.mark(supervisor, :none)
    Status.put_cordon_told(supervisor, false)
  end

  # Without such a process the message comes at once.
  defp watch(state), do: %{state | host: Process.monitor(Host.whereis(state.supervisor))}

  defp announce(%{joins: @most_joins} = state), do: leave(state)

  defp announce(state) do
    case Mark.announce(state.supervisor) do
      :joined -> look_later(%{state | joins: state.joins + 1})
      :waiting -> look_later(state)
      :told -> leave(state)
    end
  end

  # `joins` counts those of the last change only; the process may still be a member from the one before.
  defp leave(state) do
    Mark.leave(state.supervisor)
    %{state | joins: 0}
  end

  defp look_later(%{timer: nil} = state), do: %{state | timer: Process.send_after(self(), :look, @check_ms)}
  defp look_later(state), do: state

  defp name(supervisor), do: :"#{supervisor}_handoff_cordon"
end
