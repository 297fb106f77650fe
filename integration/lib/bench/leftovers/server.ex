defmodule HandoffBench.Leftovers.Server do
  @moduledoc false
  # A server that tells the collector when it comes up and goes down, with a counter that is stored before
  # every answer.

  use DurableServer, vsn: 1

  alias HandoffBench.Leftovers.Collector

  def init(state) do
    Collector.tell(collector(state), :up, state.key)
    {:ok, state, permanent: true}
  end

  def dump_state(state), do: %{"key" => state.key, "collector" => to_string(state.collector), "count" => state.count}

  def load_state(_old_vsn, stored),
    do: %{key: stored["key"], collector: stored["collector"], count: Map.get(stored, "count", 0)}

  def handle_call(:get, _from, state), do: {:reply, state.count, state}
  def handle_call(:add_sync, _from, state), do: {:reply, state.count + 1, %{state | count: state.count + 1}, :sync}

  def terminate(_reason, state), do: Collector.tell(collector(state), :down, state.key)

  defp collector(state), do: String.to_atom(to_string(state.collector))
end
