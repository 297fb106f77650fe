defmodule Trial.Application do
  @moduledoc false
  use Application

  def start(_type, _arguments) do
    backend = {DurableHandoff.Store, url: "file://" <> System.fetch_env!("TRIAL_STORE"), heartbeat_interval_ms: 200}

    durable =
      {DurableHandoff.Supervisor, name: Trial.Durable, prefix: "trial/", backend: backend, handoff_on_shutdown: true}

    Supervisor.start_link([durable], strategy: :one_for_one)
  end
end

defmodule Trial.Counter do
  @moduledoc false
  use DurableServer, vsn: 1

  def init(state), do: {:ok, state}
  def dump_state(state), do: %{"count" => state.count}
  def load_state(_old_vsn, stored), do: %{count: stored["count"]}
  def handle_call(:add, _from, state), do: {:reply, state.count + 1, %{state | count: state.count + 1}}
end
