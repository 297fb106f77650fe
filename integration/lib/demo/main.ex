defmodule HandoffDemo.Main do
  @moduledoc """
  A node of the demo, from its configuration to `ready`.

  An error ends the node with the reason on its output, which the driver shows.
  """

  alias HandoffDemo.{Config, Control, Newer, Telemetry}

  @app :handoff_demo
  @ready_ms 60_000

  @doc "Boots this node; called by the driver's command line."
  @spec run() :: :ok
  def run do
    config = Config.from_env!()

    for app <- [:durable_server | handoff_app(config)] do
      {:ok, _started} = Application.ensure_all_started(app)
    end

    # Only the stand-in reads it.
    if age_ms = config.heartbeat_max_age_ms, do: Application.put_env(:durable_server, :heartbeat_max_age_ms, age_ms)
    load_code()
    if config.newer, do: :ok = Newer.make()
    if Config.library?(config), do: Telemetry.attach()
    :ok = start(config)

    if config.role != :store,
      do: :ok = DurableServer.Supervisor.wait_until_ready(Config.supervisor(), timeout: @ready_ms)

    # The clients' node needs the registry's replica, but gets no servers.
    if config.role == :client, do: :ok = DurableServer.LifecycleManager.stop_discovery(Config.supervisor())
    Control.send_event(ready())
  end

  # All code is loaded first, as in a release, because loading it on first use would prolong the first gaps.
  defp load_code do
    for app <- [:elixir, :logger, :durable_server, :durable_handoff, :handoff_integration] do
      # The application does not exist in every mode.
      _ = Application.load(app)
      :ok = :code.ensure_modules_loaded(Application.spec(app, :modules) || [])
    end
  end

  # The tree runs in an application that is defined here, because on SIGTERM only applications are shut down
  # in order. It is permanent, so that the node ends when the tree gives up.
  defp start(config) do
    properties = [
      description: ~c"a node of the demo",
      vsn: ~c"0",
      modules: [],
      registered: [],
      applications: [:kernel, :stdlib, :elixir, :logger, :durable_server],
      mod: {HandoffDemo.Application, config}
    ]

    :ok = :application.load({:application, @app, properties})

    case Application.start(@app, :permanent) do
      :ok -> :ok
      {:error, reason} -> raise "this node's processes did not start: " <> Application.format_error(reason)
    end
  end

  defp handoff_app(config), do: if(Config.library?(config), do: [:durable_handoff], else: [])

  defp ready do
    kind = if System.get_env("DURABLE_SERVER") == "external", do: "external", else: "stand-in"
    {:ready, System.otp_release(), System.version(), to_string(Application.spec(:durable_server, :vsn)), kind}
  end
end
