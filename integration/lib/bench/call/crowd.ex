defmodule HandoffBench.Call.Crowd do
  @moduledoc """
  Many callers on this node, all waiting at the same time for servers that move from one node to another.

  The order is forced: the drain stops every server and is held at its reads, the callers arrive until all of
  them wait, and then the drain continues, on a store of 8 slots of 10 ms. Each caller increments once, so the
  counters show whether each request was handled once.
  """

  alias DurableHandoff.Client
  alias HandoffBench.Call.Server
  alias HandoffBench.Nodes

  @type figures :: %{
          callers: pos_integer(),
          servers: pos_integer(),
          answered: non_neg_integer(),
          counted: non_neg_integer(),
          arrive_ms: float(),
          answer_ms: float(),
          p50_ms: float(),
          p99_ms: float(),
          callers_mb: float(),
          waiting_mb: float(),
          subscriptions: non_neg_integer()
        }

  @doc """
  Drains `servers` servers from `source`, while `callers` callers wait for them on this node.
  """
  @spec measure(atom(), node(), pos_integer(), pos_integer()) :: figures()
  def measure(supervisor, source, callers, servers) do
    keys = start_servers(supervisor, source, servers)
    SimulatedStore.pause(node(), fn op, key -> op == :get and String.starts_with?(key, "bench/moving-") end)
    options = [max_concurrency: servers, concurrency: :fixed, timeout_ms: 120_000, attempt_timeout_ms: 60_000]
    drain = Task.async(fn -> :erpc.call(source, DurableHandoff, :drain, [supervisor, options]) end)
    Nodes.await(fn -> length(SimulatedStore.paused(node())) == servers end)
    Nodes.await(fn -> Enum.all?(keys, &(DurableHandoff.whereis(supervisor, &1) == nil)) end)

    memory = :erlang.memory(:processes)
    ref = make_ref()
    {arrive_us, counts} = :timer.tc(fn -> arrive(ref, supervisor, keys, callers) end)
    :erlang.garbage_collect(Process.whereis(Client.Server.name(supervisor)))
    {:memory, waiting_bytes} = Process.info(Process.whereis(Client.Server.name(supervisor)), :memory)
    callers_bytes = :erlang.memory(:processes) - memory - waiting_bytes

    SimulatedStore.configure(node(), latency_ms: 10, slots: 8)
    released = System.monotonic_time()
    SimulatedStore.resume(node())
    times = for at <- answers(ref, callers), do: (at - released) / System.convert_time_unit(1, :millisecond, :native)
    {:ok, %{moved: ^servers}} = Task.await(drain, :infinity)
    SimulatedStore.configure(node(), latency_ms: 0, slots: :infinity)
    counted = for key <- keys, do: elem(DurableHandoff.call(supervisor, key, :get), 1)
    sorted = Enum.sort(times)

    %{
      callers: callers,
      servers: servers,
      answered: length(times),
      counted: Enum.sum(counted),
      arrive_ms: arrive_us / 1_000,
      answer_ms: List.last(sorted),
      p50_ms: quantile(sorted, 0.5),
      p99_ms: quantile(sorted, 0.99),
      callers_mb: callers_bytes / 1_048_576,
      waiting_mb: waiting_bytes / 1_048_576,
      subscriptions: counts.subscriptions
    }
  end

  defp start_servers(supervisor, source, servers) do
    for n <- 1..servers do
      key = "moving-#{n}"
      child = {Server, key: key, initial_state: %{count: 0}}
      {:ok, _} = :erpc.call(source, DurableServer.Supervisor, :start_child, [supervisor, child, [local_only: true]])
      key
    end
  end

  # Waits until all callers wait, so that their start is not part of the measurement.
  defp arrive(ref, supervisor, keys, callers) do
    parent = self()

    for {key, _n} <- Enum.zip(Stream.cycle(keys), 1..callers) do
      spawn_link(fn ->
        result = DurableHandoff.call(supervisor, key, :add, timeout: 120_000)
        send(parent, {ref, result, System.monotonic_time()})
      end)
    end

    Nodes.await(fn -> all_wait(supervisor, callers) end)
  end

  defp all_wait(supervisor, callers) do
    with %{callers: ^callers} = counts <- Client.Server.counts(supervisor), do: counts, else: (_fewer -> nil)
  end

  # The time of each reply; a caller with an error has none. The messages are received in any order: a
  # selective receive among 50,000 messages would take too long.
  defp answers(ref, callers), do: for(_ <- 1..callers, {{:ok, _count}, at} <- [answer(ref)], do: at)

  defp answer(ref) do
    receive do
      {^ref, result, at} -> {result, at}
    end
  end

  defp quantile(sorted, q), do: Enum.at(sorted, min(trunc(length(sorted) * q), length(sorted) - 1))
end
