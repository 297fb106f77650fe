# The compiler must exist before this project is compiled. It is outside of lib/, so it is not part of the application: a
# release needs the libraries that it built, not Mix.
unless Code.ensure_loaded?(Mix.Tasks.Compile.DurableHandoffNif) do
  Code.require_file("mix/compile_durable_handoff_nif.exs", __DIR__)
end

defmodule DurableHandoff.MixProject do
  use Mix.Project

  @version "0.1.0"

  def project do
    [
      app: :durable_handoff,
      version: @version,
      elixir: "~> 1.14",
      compilers: [:durable_handoff_nif] ++ Mix.compilers(),
      start_permanent: Mix.env() == :prod,
      # Tests implement protocols for structs of their own.
      consolidate_protocols: Mix.env() != :test,
      description:
        "Moves durable servers to other nodes while they still run, instead of stopping them, when a node shuts down",
      package: [licenses: ["MIT"]],
      elixirc_paths: if(Mix.env() == :test, do: ["lib", "test/support"], else: ["lib"]),
      deps: []
    ]
  end

  # DurableServer and :telemetry are found at run time: the library starts with whichever version of them is there.
  def application, do: [extra_applications: [:logger], mod: {DurableHandoff.Application, []}]
end
