defmodule HandoffBench.Call.Server do
  @moduledoc "A minimal durable server: it counts, and stores its state when it stops."

  use DurableServer, vsn: 1

  @impl true
  def init(state), do: {:ok, state, permanent: true, auto_sync: false}

  @impl true
  def dump_state(state), do: state

  @impl true
  def load_state(_old_vsn, stored), do: %{count: stored["count"]}

  @impl true
  def handle_call(:get, _from, state), do: {:reply, state.count, state}
  def handle_call(:add, _from, state), do: {:reply, state.count + 1, %{state | count: state.count + 1}}
end
