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
      deps: [{:durable_handoff, path: "../mix_project"} | host()]
    ]
  end

  def application, do: [extra_applications: [:logger, :inets, :crypto, :durable_server]]

  defp elixirc_paths(:test), do: ["lib", "test/support"]
  defp elixirc_paths(_env), do: ["lib"]

  # With DURABLE_SERVER=external the real DurableServer comes from the code path (ERL_LIBS) and the stand-in is neither
  # compiled nor loaded.
  defp host do
    if System.get_env("DURABLE_SERVER") == "external",
      do: [],
      else: [{:durable_server, path: "host"}]
  end
end
