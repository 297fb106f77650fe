defmodule Mix.Tasks.Compile.DurableHandoffNif do
  @moduledoc """
  Builds the Rust engine (`native/handoff_nif`) with cargo and puts it into `priv/native`.

  Guarantees:

    * cargo runs only when a source of the engine changed, or with `--force`. A hash of everything the build reads is kept beside the
      library it produced, so several build directories (environments, Elixir versions) share one library.
    * A library in use is never written to. The new one is a new file that takes the old one's name; a running VM keeps the
      old one open until it restarts.

  Set `DURABLE_HANDOFF_NIF` to the path of a prebuilt library to build without Rust. `CARGO`, `CARGO_TARGET_DIR` and cargo's
  own configuration files mean what they mean to cargo.
  """

  use Mix.Task.Compiler

  @crate "handoff_nif"

  @impl true
  def run(args) do
    source = source()
    hash = source_hash(source)

    if up_to_date?(hash) and "--force" not in args do
      {:noop, []}
    else
      source |> library() |> install(hash)
      {:ok, []}
    end
  end

  @impl true
  def manifests, do: [stamp()]

  @impl true
  def clean do
    File.rm(installed())
    File.rm(stamp())
    :ok
  end

  @doc "The hash over the names and bytes of `files`, named relative to `root`: the same tree gives the same hash anywhere."
  def content_hash(root, files) do
    files
    |> Enum.sort()
    |> Enum.reduce(:erlang.md5_init(), fn file, hash ->
      bytes = File.read!(file)
      name = Path.relative_to(file, root)
      :erlang.md5_update(hash, [<<byte_size(name)::64>>, name, <<byte_size(bytes)::64>>, bytes])
    end)
    |> :erlang.md5_final()
    |> Base.encode16(case: :lower)
  end

  @doc "The path of the built library in cargo's JSON messages, or nil. Elixir 1.14 has no JSON module: this reads one field."
  def library_in(cargo_messages) do
    cargo_messages
    |> String.split("\n", trim: true)
    |> Enum.filter(&(&1 =~ ~s("reason":"compiler-artifact") and &1 =~ ~s("cdylib")))
    |> Enum.find_value(fn message ->
      with [_, names] <- Regex.run(~r/"filenames":\[(.*?)\]/, message) do
        ~r/"((?:[^"\\]|\\.)*)"/
        |> Regex.scan(names, capture: :all_but_first)
        |> List.flatten()
        |> Enum.map(&String.replace(&1, "\\\\", "\\"))
        |> Enum.find(&(Path.basename(&1) =~ @crate and Path.extname(&1) in [".so", ".dylib", ".dll"]))
      end
    end)
  end

  defp source do
    case System.get_env("DURABLE_HANDOFF_NIF", "") do
      "" -> {:workspace, workspace()}
      path -> {:prebuilt, prebuilt(Path.expand(path))}
    end
  end

  defp prebuilt(path) do
    unless File.regular?(path) do
      Mix.raise(
        "DURABLE_HANDOFF_NIF is set to #{path}, but there is no file. Point it at a prebuilt library or unset it."
      )
    end

    path
  end

  defp workspace do
    root = Path.expand("..", File.cwd!())

    unless File.regular?(Path.join(root, "Cargo.toml")) and File.dir?(Path.join(root, "native/#{@crate}")) do
      Mix.raise("""
      The Rust sources of durable_handoff are not at #{root}.
      They live beside mix_project in its repository: take the dependency with `git: ..., subdir: "mix_project"` (not `sparse:`) \
      or as a path, or set DURABLE_HANDOFF_NIF to a prebuilt library.\
      """)
    end

    root
  end

  # The machine is part of it: a checkout may be shared with a container.
  defp source_hash({:prebuilt, path}), do: "prebuilt " <> content_hash(Path.dirname(path), [path])

  defp source_hash({:workspace, root}),
    do: "#{:erlang.system_info(:system_architecture)} " <> content_hash(root, sources(root))

  defp sources(root) do
    fixed = Enum.map(~w(Cargo.toml Cargo.lock rust-toolchain.toml .cargo/config.toml), &Path.join(root, &1))
    native = Path.wildcard(Path.join(root, "native/**/*.{rs,toml}"))
    Enum.filter(fixed, &File.regular?/1) ++ Enum.reject(native, &String.contains?(&1, "/target/"))
  end

  defp up_to_date?(hash), do: File.read(stamp()) == {:ok, hash} and File.regular?(installed())

  defp library({:prebuilt, path}), do: path
  defp library({:workspace, root}), do: cargo_build(root)

  defp cargo_build(root) do
    cargo = System.get_env("CARGO") || System.find_executable("cargo") || no_cargo!()
    Mix.shell().info("Compiling the Rust engine of durable_handoff (cargo build --release -p #{@crate})")
    args = ~w(build --release --locked -p #{@crate} --message-format json-render-diagnostics)

    # Standard error is not captured: cargo's progress and its errors reach the terminal as cargo wrote them.
    case System.cmd(cargo, args, cd: root) do
      {messages, 0} ->
        library_in(messages) || Mix.raise("cargo built #{@crate} but named no shared library in its messages.")

      {_messages, status} ->
        Mix.raise("cargo build of durable_handoff's engine failed with exit status #{status}; cargo's output is above.")
    end
  end

  defp no_cargo! do
    Mix.raise("""
    durable_handoff's engine is written in Rust and cargo is not on the PATH.
    Install Rust from https://rustup.rs, or set DURABLE_HANDOFF_NIF to a prebuilt library.\
    """)
  end

  # The stamp goes last: a build that is interrupted here is done again.
  defp install(library, hash) do
    File.mkdir_p!(Path.dirname(installed()))
    File.rm(stamp())
    replace!(installed(), &File.cp!(library, &1))
    replace!(stamp(), &File.write!(&1, hash))
    # priv may not have existed when Mix linked it into the build directory.
    Mix.Project.build_structure()
  end

  defp replace!(path, write) do
    temporary = "#{path}.#{System.pid()}.tmp"
    write.(temporary)
    File.rename!(temporary, path)
  end

  # The VM looks for .dll on Windows and for .so everywhere else, macOS included.
  defp installed do
    extension = if match?({:win32, _}, :os.type()), do: ".dll", else: ".so"
    Path.join([File.cwd!(), "priv", "native", @crate <> extension])
  end

  defp stamp, do: Path.join([File.cwd!(), "priv", "native", "#{@crate}.hash"])
end
