defmodule HandoffDemo.Application do
  @moduledoc """
  What runs on a node of the demo, by its role and the mode that is measured.

      control connection > recorder > SimulatedStore                                (store)
      [> DurableHandoff.Client]     > DurableServer.Supervisor > clients             (clients' node)
                                    > DurableServer.Supervisor                       (application node, graceful)
                                    > DurableServer.Supervisor > HandoffDemo.Naive   (application node, naive)
                                    > DurableHandoff.Supervisor                      (application node, handoff)
                                    > HandoffDemo.SlowChild                          (application node, where one is wanted)

  Children stop in reverse order, so the recorder sees the end of every server, and the connection closes
  last.
  """

  use Application

  alias HandoffDemo.{Clients, Config, Control, Naive, Recorder, SlowChild}

  @impl true
  def start(_type, config) do
    children = [{Control, config}, Recorder | children(config)] ++ slow_child(config)
    # A child that gives up ends the whole node, so that nothing is measured on a broken node.
    Supervisor.start_link(children, strategy: :one_for_all, max_restarts: 0)
  end

  defp children(%Config{role: :store}), do: [{SimulatedStore, latency_ms: 0}]

  defp children(%Config{role: :client} = config) do
    waiting = if config.client == :handoff, do: [{DurableHandoff.Client, supervisor: Config.supervisor()}], else: []
    waiting ++ [{DurableServer.Supervisor, Config.supervisor_options(config)}, {Clients, config.client}]
  end

  defp children(%Config{role: :app, mode: :graceful} = config),
    do: [{DurableServer.Supervisor, Config.supervisor_options(config)}]

  defp children(%Config{role: :app, mode: :naive} = config) do
    [
      {DurableServer.Supervisor, Config.supervisor_options(config)},
      {Naive, supervisor: Config.supervisor(), max_concurrency: config.max_concurrency}
    ]
  end

  defp children(%Config{role: :app, mode: :handoff} = config) do
    [
      {DurableHandoff.Supervisor,
       Config.supervisor_options(config) ++ [handoff_on_shutdown: Config.handoff_options(config)]}
    ]
  end

  defp slow_child(%Config{role: :app, slow_child_ms: stop_ms}) when stop_ms > 0, do: [{SlowChild, stop_ms}]
  defp slow_child(_config), do: []
end
