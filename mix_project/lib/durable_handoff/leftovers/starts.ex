defmodule DurableHandoff.Leftovers.Starts do
  @moduledoc false
  # The starts that run, each in a process of its own, as many at a time as `Pace` allows.
  #
  # The process that owns this value gets `{:tried, pid, outcome, latency_us}` from each, or the DOWN of one
  # that died before that.

  alias DurableHandoff.{Clock, Host}
  alias DurableHandoff.Client.Server
  alias DurableHandoff.Host.Takeover
  alias DurableHandoff.Leftovers.Pace

  @enforce_keys [:pace]
  defstruct [:pace, running: %{}]

  @type server :: {adoption :: reference(), key :: term()}
  @type t :: %__MODULE__{pace: Pace.t(), running: %{pid() => {server(), Pace.permit(), monitor :: reference()}}}

  @spec new(:adaptive | :fixed, ceiling :: pos_integer()) :: t()
  def new(mode, ceiling), do: %__MODULE__{pace: Pace.new(mode, ceiling)}

  @doc "See `Pace.rush/2` and `Pace.calm/1`."
  @spec rush(t(), receivers :: pos_integer()) :: t()
  def rush(starts, receivers), do: %{starts | pace: Pace.rush(starts.pace, receivers)}

  @spec calm(t()) :: t()
  def calm(starts), do: %{starts | pace: Pace.calm(starts.pace)}

  @doc "Starts `server` of `module` from `source`. Returns `:full` when the pace allows no more starts."
  @spec run(t(), Host.name(), server(), module(), source :: node(), timeout_ms :: pos_integer()) ::
          {:started | :full, t()}
  def run(starts, supervisor, {_id, key} = server, module, source, timeout_ms) do
    case Pace.take(starts.pace) do
      {nil, pace} ->
        {:full, %{starts | pace: pace}}

      {permit, pace} ->
        owner = self()

        start = fn ->
          started_us = Clock.now_us()
          outcome = Takeover.start(supervisor, key, module, source, timeout_ms)
          if outcome == :started, do: announce_owner(supervisor, key)
          send(owner, {:tried, self(), outcome, Clock.now_us() - started_us})
        end

        {pid, monitor} = :proc_lib.spawn_opt(start, [:monitor])
        {:started, %{starts | pace: pace, running: Map.put(starts.running, pid, {server, permit, monitor})}}
    end
  end

  # Callers on other nodes may wait for this server while their registry lags.
  defp announce_owner(supervisor, key) do
    with {:here, pid} <- Host.lookup(supervisor, key), do: Server.announce(supervisor, key, pid)
  end

  @doc "Removes the start that ran as `pid` and returns its server; nil when there is none."
  @spec ended(t(), pid(), Takeover.outcome(), latency_us :: non_neg_integer()) :: {server(), t()} | nil
  def ended(starts, pid, outcome, latency_us) do
    case Map.pop(starts.running, pid) do
      {{server, permit, monitor}, running} ->
        Process.demonitor(monitor, [:flush])
        pace = Pace.give(starts.pace, permit, latency_us, verdict(outcome))
        {server, %{starts | pace: pace, running: running}}

      {nil, _running} ->
        nil
    end
  end

  defp verdict(:started), do: :served
  defp verdict({:failed, :store}), do: :overload
  defp verdict(_not_the_store), do: :neutral
end
