defmodule DurableHandoff.Application do
  @moduledoc false
  # Starts the agent, what notices that this VM goes down, and what keeps the log readable. An application that is part of a release takes the VM with it when its
  # top supervisor gives up. These only ever make drains better and are not worth that, so the supervisor of each may give up
  # without consequence.

  use Application

  @impl true
  def start(_type, _arguments) do
    children = for module <- [DurableHandoff.Stopping, DurableHandoff.Quiet, DurableHandoff.Agent], do: apart(module)
    Supervisor.start_link(children, strategy: :one_for_one, name: DurableHandoff.TopSupervisor)
  end

  defp apart(module) do
    %{
      id: module,
      start: {Supervisor, :start_link, [[module], [strategy: :one_for_one]]},
      type: :supervisor,
      restart: :temporary
    }
  end
end
