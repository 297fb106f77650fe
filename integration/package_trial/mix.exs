# What reads the optional requirements of the package where Hex is not installed. Mix skips optional
# dependencies, but first asks which tool would fetch them.
defmodule Trial.NoHex do
  @behaviour Mix.SCM
  def fetchable?, do: false
  def format(_opts), do: "Hex (not installed)"
  def format_lock(_opts), do: nil
  def accepts_options(_app, opts), do: if(opts[:path] || opts[:git], do: nil, else: Keyword.put(opts, :dest, "none"))
  def checked_out?(_opts), do: false
  def lock_status(_opts), do: :ok
  def equal?(_left, _right), do: true
  def managers(_opts), do: []
  def checkout(_opts), do: Mix.raise("there is no Hex here")
  def update(_opts), do: Mix.raise("there is no Hex here")
end

unless Code.ensure_loaded?(Hex), do: Mix.SCM.append(Trial.NoHex)

# A new project with the unpacked package as its dependency: integration/package copies it into an empty
# folder.
defmodule Trial.MixProject do
  use Mix.Project

  def project do
    [
      app: :trial,
      version: "0.1.0",
      elixir: "~> 1.14",
      start_permanent: Mix.env() == :prod,
      deps: [
        {:durable_handoff, path: System.fetch_env!("TRIAL_PACKAGE")},
        {:durable_server, path: System.fetch_env!("TRIAL_DURABLE_SERVER"), override: true}
      ]
    ]
  end

  def application, do: [extra_applications: [:logger], mod: {Trial.Application, []}]
end
