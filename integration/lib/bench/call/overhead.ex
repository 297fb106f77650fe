defmodule HandoffBench.Call.Overhead do
  @moduledoc """
  The time of a call to a server that does not move: `lookup` and `GenServer.call` compared with
  `DurableHandoff.call`, in turn, for the same server.
  """

  import HandoffBench.Timing

  alias HandoffBench.Call.Server

  @type figures :: %{plain_us: float(), handoff_us: float(), options_us: float(), overhead_us: float()}

  @doc "One server on `node`, called from here."
  @spec measure(atom(), node(), pos_integer(), pos_integer()) :: figures()
  def measure(supervisor, node, calls, rounds) do
    key = "overhead-#{node}"
    child = {Server, key: key, initial_state: %{count: 0}}
    {:ok, _} = :erpc.call(node, DurableServer.Supervisor, :start_child, [supervisor, child, [local_only: true]])
    {:ok, _pid} = DurableHandoff.await(supervisor, key)

    ways = [
      plain: fn -> plain(supervisor, key) end,
      handoff: fn -> {:ok, 0} = DurableHandoff.call(supervisor, key, :get) end,
      options: fn -> {:ok, 0} = DurableHandoff.call(supervisor, key, :get, timeout: 10_000, retry: :unhandled) end
    ]

    for {_name, way} <- ways, do: per_call_us(way, calls)
    times = for _ <- 1..rounds, {name, way} <- ways, do: {name, per_call_us(way, calls)}
    [plain, handoff, options] = for {name, _way} <- ways, do: median(Keyword.get_values(times, name))
    %{plain_us: plain, handoff_us: handoff, options_us: options, overhead_us: max(handoff, options) - plain}
  end

  defp plain(supervisor, key) do
    {pid, _meta} = DurableServer.Supervisor.lookup(supervisor, key)
    0 = GenServer.call(pid, :get)
  end
end
