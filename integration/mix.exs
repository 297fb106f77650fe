defmodule HandoffIntegration.MixProject do
  use Mix.Project

  # Tests, demo and benches of :durable_handoff on real BEAM nodes. Nothing here is part of the library.
  def project do
    [
      app: :handoff_integration,
      version: "0.1.0",
      elixir: "~> 1.14",
      elixirc_paths: elixirc_paths(Mix.env()),
      elixirc_options: [warnings_as_errors: true],
      start_permanent: false,
      # What comes from ERL_LIBS is no dependency; mix would take it off the code path.
      prune_code_paths: not external?(),
      deps: [{:durable_handoff, path: "../mix_project"} | stand_in()]
    ]
  end

  # The registry is part of the stand-in; beside the real DurableServer it is a package, as is telemetry.
  def application do
    extra = [:logger, :inets, :crypto, :durable_server]
    [extra_applications: if(external?(), do: extra ++ [:group, :telemetry], else: extra)]
  end

  defp elixirc_paths(:test), do: ["lib", "test/support"]
  defp elixirc_paths(_env), do: ["lib"]

  # With DURABLE_SERVER=external the real DurableServer comes from the code path (ERL_LIBS) and the stand-in is neither
  # compiled nor loaded.
  defp stand_in, do: if(external?(), do: [], else: [{:durable_server, path: "stand_in"}])

  defp external?, do: System.get_env("DURABLE_SERVER") == "external"
end
