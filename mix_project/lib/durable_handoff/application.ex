defmodule DurableHandoff.Application do
  @moduledoc false
  # Starts the processes of which a VM has one. An application of a release ends the VM when its top
  # supervisor gives up. These processes only improve drains, so the supervisor of each is temporary.

  use Application

  alias DurableHandoff.{Drain, Stopping, Wire}

  @impl true
  def start(_type, _arguments) do
    DurableHandoff.Status.init()
    children = for module <- [Stopping, Drain.Quiet, Drain.Learnt, Wire.Endpoint], do: apart(module)
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
