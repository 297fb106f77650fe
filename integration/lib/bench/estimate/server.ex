defmodule HandoffBench.Estimate.Server do
  @moduledoc "A counter that stores its state on request and when it stops."

  use DurableServer, vsn: 1

  def init(state), do: {:ok, Map.put_new(state, :count, 0), permanent: true, auto_sync: false}
  def dump_state(state), do: %{"count" => Map.get(state, :count, 0)}
  def load_state(_old_vsn, stored), do: %{count: stored["count"]}
  def handle_call(:add, _from, state), do: {:reply, :ok, %{state | count: state.count + 1}}
end
