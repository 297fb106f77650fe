defmodule DurableHandoff.Build.Cargo do
  @moduledoc "Builds the Rust libraries with cargo, and explains why if that fails."

  alias DurableHandoff.Build.Machine

  @doc "The cargo to use: the one that `CARGO` names, else the one on the PATH; nil if there is none."
  @spec find() :: Path.t() | nil
  def find do
    case System.get_env("CARGO", "") do
      "" -> System.find_executable("cargo")
      cargo -> System.find_executable(cargo)
    end
  end

  @doc """
  Builds `libraries` of the workspace at `root`. `target` is cargo's target directory; nil means cargo's
  default.

  Returns the file of each library. Raises `Mix.Error`.
  """
  @spec build!(Path.t(), Path.t(), [String.t()], Path.t() | nil) :: %{String.t() => Path.t()}
  def build!(cargo, root, libraries, target) do
    check_version!(cargo, root)
    packages = Enum.flat_map(libraries, &["-p", &1])

    Mix.shell().info(
      "Compiling the Rust libraries of durable_handoff (cargo build --release #{Enum.join(packages, " ")})"
    )

    args = ~w(build --release --locked) ++ packages ++ ~w(--message-format json-render-diagnostics)

    # Standard error is not captured: cargo's progress and its errors reach the terminal as cargo wrote them.
    case System.cmd(cargo, args, cd: root, env: environment(target)) do
      {messages, 0} ->
        for library <- libraries, into: %{} do
          path = library_in(messages, library)
          {library, path || Mix.raise("cargo built #{library} but named no shared library in its messages.")}
        end

      {_messages, status} ->
        Mix.raise(
          "cargo build of durable_handoff failed with exit status #{status}; cargo's output is above.#{compiler_hint()}"
        )
    end
  end

  @doc """
  The environment for cargo.

  `RUSTFLAGS` replaces the flags of `.cargo/config.toml`, without which no shared library can be built on
  musl.
  """
  @spec environment(Path.t() | nil, boolean()) :: [{String.t(), String.t()}]
  def environment(target, musl? \\ Machine.musl?()) do
    flags = System.get_env("RUSTFLAGS", "")
    no_static = "-C target-feature=-crt-static"

    rust =
      if musl? and flags != "" and not (flags =~ "crt-static"), do: [{"RUSTFLAGS", "#{flags} #{no_static}"}], else: []

    rust ++ if(target, do: [{"CARGO_TARGET_DIR", target}], else: [])
  end

  # An old cargo fails with an error about `edition2024`, which says nothing about its version.
  defp check_version!(cargo, root) do
    rustc = System.find_executable(System.get_env("RUSTC", "rustc"))
    wanted = wanted(File.read!(Path.join(root, "Cargo.toml")))

    for program <- [cargo, rustc], program, found = found(program, root), wanted, found < wanted do
      Mix.raise("""
      #{program} is of Rust #{Machine.text(found)}, and durable_handoff needs #{Machine.text(wanted)} or newer.
      Install a newer one from https://rustup.rs (distributions often have old ones), or set DURABLE_HANDOFF_NIF to a \
      directory with libraries that were built on another machine.\
      """)
    end
  end

  defp wanted(manifest) do
    with [_all, version] <- Regex.run(~r/^rust-version = "([\d.]+)"/m, manifest), do: Machine.version(version)
  end

  # "cargo 1.95.0 (f2d3ce0bd 2026-03-21)". Any other answer comes from a wrapper, or from a cargo that cannot
  # start; then the build itself shows the error.
  defp found(program, root) do
    with {output, 0} <- System.cmd(program, ["--version"], cd: root, stderr_to_stdout: true),
         [_all, version] <- Regex.run(~r/^(?:cargo|rustc) (\d+\.\d+)/m, output),
         do: Machine.version(version),
         else: (_other -> nil)
  end

  defp compiler_hint do
    if match?({:unix, _name}, :os.type()) and System.find_executable(System.get_env("CC", "cc")) == nil do
      "\nThere is no C compiler, which Rust links with: install gcc and libc6-dev on Debian, build-base on Alpine."
    else
      ""
    end
  end

  @doc "The path of a built library in cargo's JSON messages, or nil. Reads one field: Elixir 1.14 has no JSON module."
  @spec library_in(String.t(), String.t()) :: Path.t() | nil
  def library_in(cargo_messages, library) do
    cargo_messages
    |> String.split("\n", trim: true)
    |> Enum.filter(&(&1 =~ ~s("reason":"compiler-artifact") and &1 =~ ~s("cdylib")))
    |> Enum.find_value(fn message ->
      with [_, names] <- Regex.run(~r/"filenames":\[(.*?)\]/, message) do
        ~r/"((?:[^"\\]|\\.)*)"/
        |> Regex.scan(names, capture: :all_but_first)
        |> List.flatten()
        |> Enum.map(&String.replace(&1, "\\\\", "\\"))
        |> Enum.find(&String.ends_with?(&1, file_names(library)))
      end
    end)
  end

  @doc "The possible file names of a library."
  @spec file_names(String.t()) :: [String.t()]
  def file_names(library), do: for(name <- ["lib", ""], type <- ~w(.so .dylib .dll), do: name <> library <> type)
end
