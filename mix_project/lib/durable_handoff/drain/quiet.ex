defmodule DurableHandoff.Drain.Quiet do
  @moduledoc false
  # Keeps DurableServer's log lines about single moves out of the log while a drain runs (option `quiet`).
  #
  # DurableServer logs about five lines for each server that it moves, some of them as errors of attempts that
  # are tried again at once. OTP's log handler drops lines beyond 500 per second, including those that an
  # operator needs. So while a drain with `quiet: true` runs on this node
  #
  #   * modules of DurableServer log warnings and errors only. Modules with a level of their own keep it, and so
  #     does a global level that is higher;
  #   * the processes that run moves log nothing of DurableServer's: the outcome of each move is in the report,
  #     and in the event `[:durable_handoff, :attempt, ...]`.
  #
  # The levels are restored when the last such drain has ended, for any reason.

  use GenServer

  alias DurableHandoff.{Host, Log}

  @level :warning
  @patience_ms 1_000

  # The monitors of the processes that keep the log quiet, and the modules whose level was changed.
  defstruct holders: MapSet.new(), modules: []

  @doc "Started by the application."
  @spec start_link(term()) :: GenServer.on_start()
  def start_link(_arguments), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc """
  Keeps the log quiet until the calling process ends. If this server does not run, the log stays as it is.
  """
  @spec hold() :: :ok
  def hold do
    GenServer.call(__MODULE__, :hold, @patience_ms)
  catch
    :exit, _reason -> :ok
  end

  @doc "Runs `fun`. If the log of this node is quiet, the calling process logs nothing meanwhile."
  @spec run((() -> result)) :: result when result: term()
  def run(fun) do
    if held?() do
      silence()

      try do
        fun.()
      after
        unsilence()
      end
    else
      fun.()
    end
  end

  defp held?, do: :ets.whereis(__MODULE__) != :undefined and :ets.member(__MODULE__, :held)

  # Elixir 1.15 and later can set the level of one process. The function is called dynamically, because its
  # name differs between versions.
  defp silence do
    if process_levels?(),
      do: apply(Logger, :put_process_level, [self(), :none]),
      else: apply(Logger, :disable, [self()])
  end

  defp unsilence do
    if process_levels?(),
      do: apply(Logger, :delete_process_level, [self()]),
      else: apply(Logger, :enable, [self()])
  end

  defp process_levels?, do: function_exported?(Logger, :put_process_level, 2)

  @impl true
  def init([]) do
    Process.flag(:trap_exit, true)
    :ets.new(__MODULE__, [:named_table, :protected, read_concurrency: true])
    {:ok, %__MODULE__{}}
  end

  @impl true
  def handle_call(:hold, {pid, _tag}, state) do
    state = if MapSet.size(state.holders) == 0, do: %{state | modules: quieten()}, else: state
    {:reply, :ok, %{state | holders: MapSet.put(state.holders, Process.monitor(pid))}}
  end

  @impl true
  def handle_info({:DOWN, monitor, :process, _holder, _reason}, state) do
    state = %{state | holders: MapSet.delete(state.holders, monitor)}
    {:noreply, if(MapSet.size(state.holders) == 0, do: restore(state), else: state)}
  end

  def handle_info(unexpected, state) do
    Log.unexpected(nil, unexpected)
    {:noreply, state}
  end

  @impl true
  def terminate(_reason, state), do: restore(state)

  # Returns the modules whose level was set.
  defp quieten do
    :ets.insert(__MODULE__, {:held, true})
    %{level: primary} = :logger.get_primary_config()
    own = for {module, _level} <- :logger.get_module_level(), do: module
    modules = if :logger.compare_levels(primary, @level) == :lt, do: Host.modules() -- own, else: []
    if modules != [], do: :logger.set_module_level(modules, @level)
    modules
  end

  defp restore(%{modules: modules}) do
    :ets.delete(__MODULE__, :held)
    if modules != [], do: :logger.unset_module_level(modules)
    %__MODULE__{}
  end
end
