defmodule HandoffBench.Call do
  @moduledoc """
  The cost of `DurableHandoff.call` when nothing moves, and its behaviour when many servers move.

  Three nodes on this machine with the same supervisor: this one, with the callers, and two others. First one
  server here and one on another node are called in both ways in turn (`HandoffBench.Call.Overhead`); then a
  crowd (`HandoffBench.Call.Crowd`).
  """

  import HandoffBench.Timing, only: [decimals: 1]

  alias HandoffBench.Call.{Crowd, Overhead}
  alias HandoffBench.{Nodes, Options}

  @sup HandoffBench.Durable
  @defaults %{calls: 20_000, rounds: 15, callers: 50_000, servers: 100}

  @doc "Runs the measurement with command-line arguments and prints its tables."
  @spec main([String.t()]) :: :ok
  def main(argv) do
    strict = [calls: :integer, rounds: :integer, callers: :integer, servers: :integer]
    options = Options.parse!(argv, strict, @defaults)

    [source, other] = start()
    here = Overhead.measure(@sup, node(), options.calls, options.rounds)
    there = Overhead.measure(@sup, other, max(div(options.calls, 10), 1), options.rounds)
    crowd = Crowd.measure(@sup, source, options.callers, options.servers)
    print(here, there, crowd)
    Options.write_json(options, %{owner_here: here, owner_elsewhere: there, crowd: crowd})
    :ok
  end

  defp start do
    Logger.configure(level: :error)
    Nodes.start_distribution()
    {:ok, _store} = SimulatedStore.start_link(latency_ms: 0)
    {_peers, nodes} = Nodes.start(2)
    options = [name: @sup, prefix: "bench/", backend: {SimulatedStore, node: node()}, handoff_on_shutdown: true]
    for node <- [node() | nodes], do: Nodes.start_supervisor(node, options)
    for node <- nodes, do: Nodes.await_heartbeats(node, @sup, length(nodes) + 1)
    nodes
  end

  defp print(here, there, crowd) do
    IO.puts("""
    A call with its owner in place, microseconds, Elixir #{System.version()}, OTP #{System.otp_release()}

                                      owner here   on another node
      lookup + GenServer.call         #{us(here.plain_us)}   #{us(there.plain_us)}
      DurableHandoff.call             #{us(here.handoff_us)}   #{us(there.handoff_us)}
      DurableHandoff.call, options    #{us(here.options_us)}   #{us(there.options_us)}
      more, at most                   #{us(here.overhead_us)}   #{us(there.overhead_us)}
      ratio                           #{us(here.handoff_us / here.plain_us)}   #{us(there.handoff_us / there.plain_us)}

    #{crowd.callers} callers waiting on #{crowd.servers} moving servers, store of 8 slots x 10 ms

      answered                        #{crowd.answered}
      counted by the servers          #{crowd.counted}
      subscriptions                   #{crowd.subscriptions}
      memory of the callers           #{decimals(crowd.callers_mb)} MB (#{round(crowd.callers_mb * 1_048_576 / crowd.callers)} bytes each)
      memory of who waits for them    #{decimals(crowd.waiting_mb)} MB (#{round(crowd.waiting_mb * 1_048_576 / crowd.callers)} bytes a caller)
      until all waited                #{decimals(crowd.arrive_ms)} ms
      from the move going on to an answer, p50 / p99 / last   #{decimals(crowd.p50_ms)} / #{decimals(crowd.p99_ms)} / #{decimals(crowd.answer_ms)} ms
    """)
  end

  defp us(number), do: number |> decimals() |> String.pad_leading(10)
end
