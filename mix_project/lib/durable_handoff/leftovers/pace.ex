defmodule DurableHandoff.Leftovers.Pace do
  @moduledoc false
  # How many starts at a time: the engine's limiter, with a floor. Several receivers of one drain share a
  # store without coordination; each sees the others, and the source's last writes, as a slower
  # store and takes less.
  #
  # The limiter keeps attempts few because a server waits stopped while its attempt waits for the store.
  # Leftovers are stopped anyway, so few in flight gain them nothing: a store that does not fail gets at least
  # as many as the limiter begins with.
  #
  # While the source still stops servers, fifty at a time, the starts of all receivers together get twice as
  # many (`rush/2`): a start takes four requests and a stop one, so a store that serves all requests alike
  # then stops few more servers than can be started soon after, and each is away for less time. That slows the
  # stops down, which have a limit of their own (55 s in all), to a third at most: the receiver ends it after
  # ten seconds.
  #
  # Guarantee: at most `ceiling` permits are out, and one always can be. For the process that made it alone.

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

  @doc "The source stops servers now, and `receivers` receivers start them: raises the floor."
  @spec rush(t(), receivers :: pos_integer()) :: t()
  def rush(pace, receivers), do: %{pace | floor: @rush |> div(receivers) |> max(@floor) |> min(pace.ceiling)}

  @doc "Ends `rush/2`."
  @spec calm(t()) :: t()
  def calm(pace), do: %{pace | floor: min(@floor, pace.ceiling)}

  @doc "A permit for one start, nil when enough run."
  @spec take(t()) :: {permit() | nil, t()}
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
