defmodule DurableHandoff.Application do
  @moduledoc false
  # Starts the processes that exist once per VM. In a release, an application whose top supervisor gives up
  # ends the VM. These processes only improve drains, so each is started apart.

  use Application

  alias DurableHandoff.{Apart, Drain, Stopping, Wire}

  @impl true
  def start(_type, _arguments) do
    preload()
    DurableHandoff.Status.init()
    children = for module <- [Stopping, Drain.Quiet, Drain.Learnt, Wire.Endpoint], do: Apart.child(module, module)
    Supervisor.start_link(children, strategy: :one_for_one, name: DurableHandoff.TopSupervisor)
  end

  # In interactive mode a module is loaded on its first call. That must not happen during a shutdown.
  defp preload do
    modules = Application.spec(:durable_handoff, :modules) || []
    :proc_lib.spawn(fn -> :code.ensure_modules_loaded(modules) end)
  end
end
