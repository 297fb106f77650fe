defmodule DurableHandoff.Application do
  @moduledoc false
  # Starts the agent, `DurableHandoff.Stopping` and `DurableHandoff.Drain.Quiet`. An application of a release ends
  # the VM when its top supervisor gives up. These processes only improve drains, so the supervisor of each is
  # temporary.

  use Application

  @impl true
  def start(_type, _arguments) do
    children =
      for module <- [DurableHandoff.Stopping, DurableHandoff.Drain.Quiet, DurableHandoff.Agent], do: apart(module)

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
