defmodule DurableHandoff.Apart do
  @moduledoc false
  # Work that is kept apart, so that neither its end nor that of its caller ends the other.
  #
  # A child apart has two processes above it: a supervisor of its own, which restarts it when it crashes, and this one,
  # which starts that supervisor again when it has given up. So a child that crashes again and again is down for ten
  # seconds at a time, for instance while DurableServer is restarted, and no other process ends with it.

  use GenServer

  alias DurableHandoff.Clock

  @again_ms 10_000

  @type child :: :supervisor.child_spec() | {module(), term()} | module()

  @doc "The specification of `child`, kept apart; `id` is for the supervisor above. The shutdown time is the child's own."
  @spec child(id :: term(), child()) :: Supervisor.child_spec()
  def child(id, child) do
    shutdown = Supervisor.child_spec(child, []) |> Map.get(:shutdown, 5_000)
    %{id: id, start: {GenServer, :start_link, [__MODULE__, child]}, shutdown: shutdown, restart: :temporary}
  end

  @doc """
  Waits for the result of `work` in a process of its own. The process goes on when the caller ends. After `timeout_ms` it
  is killed, and the result is `{:died, :timeout}`.
  """
  @spec run((() -> result), timeout()) :: {:ok, result} | {:died, reason :: term()} when result: term()
  def run(work, timeout_ms \\ :infinity), do: await(start_work(work), timeout_ms)

  @doc "The same for each of `items` at the same time; `timeout_ms` is for all together. The results are in their order."
  @spec run_each([item], (item -> result), timeout_ms :: non_neg_integer()) ::
          [{item, {:ok, result} | {:died, reason :: term()}}]
        when item: term(), result: term()
  def run_each(items, work, timeout_ms) do
    until_us = Clock.after_ms(timeout_ms)
    running = for item <- items, do: {item, start_work(fn -> work.(item) end)}
    for {item, process} <- running, do: {item, await(process, Clock.until_ms(until_us))}
  end

  defp start_work(work), do: spawn_monitor(fn -> exit({:shutdown, {__MODULE__, work.()}}) end)

  defp await({pid, monitor}, timeout_ms) do
    receive do
      {:DOWN, ^monitor, :process, _pid, {:shutdown, {__MODULE__, result}}} -> {:ok, result}
      {:DOWN, ^monitor, :process, _pid, reason} -> {:died, reason}
    after
      timeout_ms ->
        Process.exit(pid, :kill)
        Process.demonitor(monitor, [:flush])
        {:died, :timeout}
    end
  end

  @impl true
  def init(child) do
    Process.flag(:trap_exit, true)
    with {:ok, supervisor} <- start(child), do: {:ok, {child, supervisor}}, else: ({:error, reason} -> {:stop, reason})
  end

  # Nothing calls this process. A message that it does not expect must not crash it: its child would stay down.
  @impl true
  def handle_call(_question, _from, state), do: {:noreply, state}

  @impl true
  def handle_cast(_unknown, state), do: {:noreply, state}

  @impl true
  def handle_info({:EXIT, supervisor, _gave_up}, {child, supervisor}) do
    Process.send_after(self(), :start, @again_ms)
    {:noreply, {child, nil}}
  end

  def handle_info(:start, {child, nil}) do
    case start(child) do
      {:ok, supervisor} ->
        {:noreply, {child, supervisor}}

      {:error, _reason} ->
        Process.send_after(self(), :start, @again_ms)
        {:noreply, {child, nil}}
    end
  end

  def handle_info(_late, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, {_child, nil}), do: :ok

  def terminate(_reason, {_child, supervisor}) do
    Supervisor.stop(supervisor, :shutdown)
  catch
    # It gave up just now.
    :exit, _reason -> :ok
  end

  defp start(child), do: Supervisor.start_link([child], strategy: :one_for_one)
end
