# The BEAM's side of the round trips: a process that echoes, and one that measures the echo process of another
# node.
defmodule Bench do
  def echo do
    receive do
      {from, number} -> send(from, number)
    end

    echo()
  end

  def measure do
    receive do
      {:measure, from, peer, in_flight, ms} ->
        echo = {:echo, peer}
        for number <- 1..in_flight, do: send(echo, {self(), number})
        began = System.monotonic_time(:microsecond)
        count = round_trips(echo, began + ms * 1_000, in_flight, 0)
        took = System.monotonic_time(:microsecond) - began
        for _rest <- 1..in_flight, do: receive(do: (number when is_integer(number) -> :ok))
        send(from, {count, took})
    end

    measure()
  end

  # Both sides read the clock only once in a hundred round trips, so that it costs little.
  defp round_trips(echo, until, in_flight, count) do
    receive do
      number when is_integer(number) -> send(echo, {self(), number})
    end

    if rem(count, 100) == 0 and System.monotonic_time(:microsecond) >= until,
      do: count + 1,
      else: round_trips(echo, until, in_flight, count + 1)
  end
end

Process.register(spawn(&Bench.echo/0), :echo)
Process.register(spawn(&Bench.measure/0), :measure)
IO.puts("up")
Process.sleep(:infinity)
