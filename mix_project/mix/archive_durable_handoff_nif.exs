defmodule Mix.Tasks.DurableHandoff.Archive do
  @shortdoc "Packs the Rust libraries as precompiled archives, with their checksums"

  @moduledoc """
  Packs the Rust libraries of this machine as precompiled archives, and writes the checksums of all archives
  in the same directory. For those who publish the package.

      mix durable_handoff.archive --output archives

  Compiles first, as `mix compile` would: with cargo or from `DURABLE_HANDOFF_NIF`. Options:

    * `--output DIRECTORY`: where the archives go; `archives` by default.
    * `--from DIRECTORY --triple TRIPLE`: packs the libraries in that directory, which were built for another
      machine.
    * `--checksums`: packs nothing: writes the checksums of the archives in the directory, which came from
      several machines.
  """

  use Mix.Task

  alias DurableHandoff.Build.{Cargo, Machine, Precompiled}
  alias Mix.Tasks.Compile.DurableHandoffNif

  @switches [output: :string, from: :string, triple: :string, checksums: :boolean]

  @impl true
  def run(args) do
    {options, []} = OptionParser.parse!(args, strict: @switches)
    output = Path.expand(options[:output] || "archives")
    unless options[:checksums], do: pack(options, output)
    names = Precompiled.write_checksums!(output)
    if names == [], do: Mix.raise("There is no archive of this version in #{output}.")
    Mix.shell().info("#{Path.join(output, Precompiled.checksums_file())}: #{length(names)} archives")
  end

  defp pack(options, output) do
    triple = options[:triple] || Machine.triple() || Mix.raise("This machine has no triple: give one with --triple.")

    for {library, file} <- files(options[:from]) do
      name = Precompiled.pack!(file, library, output, triple)
      needs = file |> File.read!() |> Machine.needs()
      Mix.shell().info("#{Path.join(output, name)}#{needs && ": needs glibc #{Machine.text(needs)} or newer"}")
    end
  end

  defp files(nil) do
    Mix.Task.run("compile.durable_handoff_nif")
    DurableHandoffNif.installed()
  end

  defp files(directory) do
    for library <- ["handoff_nif", "store_nif"], into: %{} do
      file = Enum.find(Cargo.file_names(library), &File.regular?(Path.join(directory, &1)))
      {library, Path.join(directory, file || Mix.raise("There is no #{library} in #{directory}."))}
    end
  end
end
