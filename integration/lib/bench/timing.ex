defmodule HandoffBench.Timing do
  @moduledoc "Measures calls, takes medians, and formats figures."

  @doc """
  The mean time of one call of `fun` in microseconds, over `count` calls in a separate process, after one
  warm-up call.
  """
  @spec per_call_us((() -> term()), pos_integer()) :: float()
  def per_call_us(fun, count) do
    Task.await(
      Task.async(fn ->
        fun.()
        started = System.monotonic_time(:nanosecond)
        repeat(fun, count)
        (System.monotonic_time(:nanosecond) - started) / count / 1_000
      end),
      :infinity
    )
  end

  @doc "The median; the higher one of the two middle values if there are two."
  @spec median([number(), ...]) :: number()
  def median(values), do: values |> Enum.sort() |> Enum.at(div(length(values), 2))

  @doc "A figure with this many digits after the point."
  @spec decimals(number(), non_neg_integer()) :: String.t()
  def decimals(number, digits \\ 2), do: :erlang.float_to_binary(number / 1, decimals: digits)

  defp repeat(_fun, 0), do: :ok

  defp repeat(fun, count) do
    fun.()
    repeat(fun, count - 1)
  end
end
