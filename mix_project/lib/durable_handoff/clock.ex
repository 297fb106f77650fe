defmodule DurableHandoff.Clock do
  @moduledoc false
  # The only clock of this library: microseconds since this VM started. Erlang's monotonic time can be
  # negative, and the engine accepts no negative time. Milliseconds are used only for timeouts.

  @type instant :: non_neg_integer()

  @doc "Now."
  @spec now_us() :: instant()
  def now_us do
    System.convert_time_unit(System.monotonic_time() - :erlang.system_info(:start_time), :native, :microsecond)
  end

  @doc "Converts an instant of the engine's clock to `System.monotonic_time/0`, in native units."
  @spec monotonic_time(integer()) :: integer()
  def monotonic_time(us),
    do: System.convert_time_unit(us, :microsecond, :native) + :erlang.system_info(:start_time)

  @doc "The instant at which a timeout that begins now is over."
  @spec after_ms(timeout()) :: instant() | :infinity
  def after_ms(:infinity), do: :infinity
  def after_ms(timeout_ms), do: now_us() + timeout_ms * 1_000

  @doc "Milliseconds from now until `instant`, rounded up, at least 0."
  @spec until_ms(integer() | :infinity) :: timeout()
  def until_ms(:infinity), do: :infinity
  def until_ms(instant_us), do: max(div(instant_us - now_us() + 999, 1_000), 0)
end
