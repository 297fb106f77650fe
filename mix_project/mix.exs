# The compiler must exist before this project is compiled. It is outside of lib/ and so not part of the
# application: a release needs the built libraries, not Mix.
unless Code.ensure_loaded?(Mix.Tasks.Compile.DurableHandoffNif) do
  for file <-
        ~w(build/machine build/download build/precompiled build/cargo compile_durable_handoff_nif archive_durable_handoff_nif) do
    Code.require_file("mix/#{file}.exs", __DIR__)
  end
end

defmodule DurableHandoff.MixProject do
  use Mix.Project

  @version "0.1.0"
  @source_url "https://example.com/durable_handoff"

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
      source_url: @source_url,
      package: package(),
      elixirc_paths: if(Mix.env() == :test, do: ["lib", "test/support"], else: ["lib"]),
      deps: if(packaged?(), do: deps(), else: [])
    ]
  end

  # integration/package puts the folder together that `mix hex.build` packs. priv is not in it: it would hold
  # the libraries of the machine that builds the package.
  defp package do
    [
      licenses: ["MIT"],
      links: %{"Source" => @source_url, "Changelog" => @source_url <> "/blob/v#{@version}/CHANGELOG.md"},
      files:
        ~w(lib mix mix.exs .formatter.exs Cargo.toml Cargo.lock .cargo native README.md CHANGELOG.md LICENSE) ++
          Path.wildcard("checksum-*.exs")
    ]
  end

  # Left out in the repository, where Mix would ask for Hex because of them.
  defp deps,
    do: [{:durable_server, "~> 0.1 and >= 0.1.3", optional: true}, {:telemetry, "~> 0.4 or ~> 1.0", optional: true}]

  # In the repository the Rust crates are beside this project, in the package they are in it.
  defp packaged?, do: File.dir?(Path.join(__DIR__, "native"))

  # DurableServer and :telemetry are found at run time: the library starts with whichever version of them is
  # there.
  def application, do: [extra_applications: [:logger], mod: {DurableHandoff.Application, []}]
end
