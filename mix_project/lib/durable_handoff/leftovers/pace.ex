defmodule DurableHandoff.Leftovers.Pace do
  @moduledoc false
  # How many leftovers are started at a time: the engine's limiter, with a lower bound. Several receivers of
  # one drain share a store without coordination. Each sees the requests of the others, and the source's last
  # writes, as a slower store, and starts fewer at a time.
  #
  # In a drain the limiter keeps the number of attempts low, because a server is down while its attempt waits
  # for the store. Leftovers are down anyway, so that does not help them. While the store does not fail, at
  # least as many start as the limiter begins with.
  #
  # The source stops fifty servers at a time. While it does, all receivers of its offers together start twice as
  # many (`rush/2`), because a start takes four requests and a stop takes one; more only where each would start more
  # without it. Without this, servers would be stopped much faster than they can be started, and each would be down
  # for longer. It can slow the stops to a third of their speed. The stops have a time limit (55 s in all), so a
  # receiver ends this after ten seconds.
  #
  # Guarantee: at most `ceiling` permits are in use, and at least one is always available when none is in use.
  # Only the process that created it may use it.

  alias DurableHandoff.{Clock, Native}

  @floor 8
  # Twice as many as DurableServer's graceful shutdown stops at a time.
  @rush 100

  @enforce_keys [:limiter, :ceiling, :floor]
  defstruct @enforce_keys ++ [out: 0, failing?: false]

  @opaque t :: %__MODULE__{
            limiter: reference(),
            ceiling: pos_integer(),
            floor: pos_integer(),
            out: non_neg_integer(),
            failing?: boolean()
          }
  @type permit :: pos_integer() | :beside
  @type verdict :: :served | :overload | :neutral

  @spec new(:adaptive | :fixed, ceiling :: pos_integer()) :: t()
  def new(mode, ceiling),
    do: calm(%__MODULE__{limiter: Native.limiter_new(mode, ceiling), ceiling: ceiling, floor: ceiling})

  @doc "Raises the lower bound while the source stops servers and `receivers` receivers start them."
  @spec rush(t(), receivers :: pos_integer()) :: t()
  def rush(pace, receivers), do: %{pace | floor: @rush |> div(receivers) |> max(@floor) |> min(pace.ceiling)}

  @doc "Ends `rush/2`."
  @spec calm(t()) :: t()
  def calm(pace), do: %{pace | floor: min(@floor, pace.ceiling)}

  @doc "A permit for one start, or nil when enough are running."
  @spec take(t()) :: {permit() | nil, t()}
  # The limiter knows only its own permits, not those beside it.
  def take(%{out: out, ceiling: ceiling} = pace) when out >= ceiling, do: {nil, pace}

  def take(%{out: out} = pace) do
    case Native.limiter_take(pace.limiter, Clock.now_us()) do
      permit when is_integer(permit) -> {permit, %{pace | out: out + 1}}
      nil when out < pace.floor and not pace.failing? -> {:beside, %{pace | out: out + 1}}
      nil -> {nil, pace}
    end
  end

  @doc """
  Gives a permit back. `:served`: the latency measures the load of the store; `:overload`: the store failed.
  """
  @spec give(t(), permit(), non_neg_integer(), verdict()) :: t()
  def give(pace, permit, latency_us, verdict) do
    if permit != :beside, do: Native.limiter_give(pace.limiter, Clock.now_us(), permit, latency_us, verdict)
    failing? = if verdict == :neutral, do: pace.failing?, else: verdict == :overload
    %{pace | out: pace.out - 1, failing?: failing?}
  end
end
