defmodule HandoffDemo.Naive do
  @moduledoc """
  A plain handoff, for comparison: when the node stops, a task stream moves every server, a fixed number at a time.

  For a fair comparison with `durable_handoff` it stops before the supervisor that it drains, marks the node
  as draining first, and gives every move enough time. It gives no target, so `rehome_child/3` chooses one.
  """

  use GenServer, shutdown: 60_000

  @doc "Options: `supervisor:`, `max_concurrency:`."
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(opts), do: GenServer.start_link(__MODULE__, opts)

  @impl true
  def init(opts) do
    Process.flag(:trap_exit, true)
    {:ok, opts}
  end

  @impl true
  def terminate(_reason, opts) do
    supervisor = opts[:supervisor]
    DurableServer.LifecycleManager.stop_discovery(supervisor)

    supervisor
    |> DurableServer.Supervisor.__local_global_members__()
    |> Task.async_stream(
      fn {key, {_pid, %{module: module}}} ->
        DurableServer.Supervisor.rehome_child(supervisor, {module, key: key, initial_state: %{}})
      end,
      max_concurrency: opts[:max_concurrency],
      timeout: 30_000,
      on_timeout: :kill_task,
      ordered: false
    )
    |> Stream.run()
  end
end
