defmodule DurableHandoff.Application do
  @moduledoc false
  # Starts the agent. An application that is part of a release takes the VM with it when its top supervisor gives up: the
  # agent, which only ever makes drains better, is not worth that, so its own supervisor may give up without consequence.

  use Application

  @impl true
  def start(_type, _arguments) do
    agent = %{
      id: DurableHandoff.Agent,
      start: {Supervisor, :start_link, [[DurableHandoff.Agent], [strategy: :one_for_one]]},
      type: :supervisor,
      restart: :temporary
    }

    Supervisor.start_link([agent], strategy: :one_for_one, name: DurableHandoff.TopSupervisor)
  end
end
