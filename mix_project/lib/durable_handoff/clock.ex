defmodule DurableHandoff.Clock do
  @moduledoc false
  # The engine's clock: microseconds since this VM started. Erlang's monotonic time itself may be negative, the engine's may not.

  @spec now_us() :: non_neg_integer()
  def now_us do
    System.convert_time_unit(System.monotonic_time() - :erlang.system_info(:start_time), :native, :microsecond)
  end

  @doc "An instant of the engine's clock as one of `System.monotonic_time/0`, in native units."
  @spec monotonic_time(integer()) :: integer()
  def monotonic_time(us),
    do: System.convert_time_unit(us, :microsecond, :native) + :erlang.system_info(:start_time)
end
