defmodule DurableServer.MixProject do
  use Mix.Project

  # A test double of the Hex package of the same name; see README.md.
  def project do
    [
      app: :durable_server,
      version: "0.1.4",
      elixir: "~> 1.14",
      elixirc_paths: elixirc_paths(Mix.env()),
      elixirc_options: [warnings_as_errors: true],
      start_permanent: false,
      deps: []
    ]
  end

  def application, do: [extra_applications: [:logger]]

  # The unit tests run on the simulated store and the peer nodes of the integration project.
  @store ~w(../lib/simulated_store.ex ../lib/simulated_store)
  @peers Enum.map(
           ~w(cluster.ex cluster cluster_case.ex patient.ex recorded.ex recorded relay.ex servers verified.ex),
           &"../test/support/#{&1}"
         )

  # The library's own JSON reader reads the recorded objects.
  @json Enum.map(~w(decoder.ex decode_error.ex utf8.ex), &"../../mix_project/lib/durable_handoff/codec/#{&1}")

  defp elixirc_paths(:test),
    do: ["lib", "test/support" | Enum.map(@store ++ @peers ++ @json, &Path.expand(&1, __DIR__))]

  defp elixirc_paths(_env), do: ["lib"]
end
