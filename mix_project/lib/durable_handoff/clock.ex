defmodule DurableHandoff.Clock do
  @moduledoc false
  # The engine's clock: microseconds since this VM started. Erlang's monotonic time itself may be negative, the engine's may not.

  @spec now_us() :: non_neg_integer()
  def now_us do
    System.convert_time_unit(System.monotonic_time() - :erlang.system_info(:start_time), :native, :microsecond)
  end
end
