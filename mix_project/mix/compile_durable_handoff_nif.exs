defmodule Mix.Tasks.Compile.DurableHandoffNif do
  @moduledoc """
  Builds the Rust libraries of durable_handoff with cargo and puts them into `priv/native`: `handoff_nif`, the
  engine and the codec, and `store_nif`, the stores.

  `config :durable_handoff, store: false` leaves the stores out: they are neither built nor installed, and
  `DurableHandoff.Store` raises an error that says so. After a change of that line, run
  `mix deps.compile durable_handoff --force`.

  Guarantees:

    * cargo runs at most once, and only when a source changed or with `--force`. A hash of everything that the build
      reads is kept beside each library, so several build directories (environments, Elixir versions) share one.
    * A library in use is never written to. The new library is a new file of the same name; a running VM keeps the old
      one open until it restarts.

  To build without Rust, set `DURABLE_HANDOFF_NIF` to a directory with both libraries, or to the file of the first
  with the second beside it. cargo reads `CARGO_TARGET_DIR` and its own configuration files as usual; `CARGO` names
  another cargo.
  """

  use Mix.Task.Compiler

  @engine "handoff_nif"
  @store "store_nif"

  @impl true
  def run(args) do
    unless @store in libraries(), do: remove(@store)
    source = source()
    hash = source_hash(source)

    case Enum.reject(libraries(), &(up_to_date?(&1, hash.(&1)) and "--force" not in args)) do
      [] ->
        {:noop, []}

      outdated ->
        for {library, path} <- built(source, outdated), do: install(library, path, hash.(library))
        # priv may not have existed when Mix linked it into the build directory.
        Mix.Project.build_structure()
        {:ok, []}
    end
  end

  @impl true
  def manifests, do: Enum.map(libraries(), &stamp/1)

  @impl true
  def clean, do: Enum.each([@engine, @store], &remove/1)

  @doc "The hash of the bytes of `files` and their names relative to `root`: the same tree has the same hash anywhere."
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

  @doc "The path of a built library in cargo's JSON messages, or nil. Reads one field: Elixir 1.14 has no JSON module."
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

  # The names that cargo and people give a library.
  defp file_names(library), do: for(name <- ["lib", ""], type <- ~w(.so .dylib .dll), do: name <> library <> type)

  defp libraries, do: if(Application.get_env(:durable_handoff, :store, true), do: [@engine, @store], else: [@engine])

  defp source do
    case System.get_env("DURABLE_HANDOFF_NIF", "") do
      "" -> {:workspace, workspace()}
      path -> {:prebuilt, Map.new(libraries(), &{&1, prebuilt(&1, Path.expand(path))})}
    end
  end

  # The engine's file may have any name.
  defp prebuilt(library, path) do
    directory = if File.dir?(path), do: path, else: Path.dirname(path)

    cond do
      library == @engine and File.regular?(path) -> path
      file = Enum.find(file_names(library), &File.regular?(Path.join(directory, &1))) -> Path.join(directory, file)
      true -> no_prebuilt!(library, path, directory)
    end
  end

  defp no_prebuilt!(library, path, directory) do
    missing =
      if File.exists?(path),
        do: "there is no #{library} in #{directory} (#{Enum.join(file_names(library), ", ")})",
        else: "there is no such file or directory"

    leave_out = if library == @store, do: " To do without stores, configure `config :durable_handoff, store: false`."

    Mix.raise("""
    DURABLE_HANDOFF_NIF is set to #{path}, but #{missing}.
    Point it at a directory with #{Enum.join(libraries(), " and ")}, or unset it to build with cargo.#{leave_out}\
    """)
  end

  # The Hex package has the Rust sources in it, the repository has them beside mix_project.
  defp workspace do
    roots = [File.cwd!(), Path.expand("..", File.cwd!())]

    Enum.find(roots, &(File.regular?(Path.join(&1, "Cargo.toml")) and File.dir?(Path.join(&1, "native/#{@engine}")))) ||
      Mix.raise("""
      The Rust sources of durable_handoff are neither in #{Enum.join(roots, " nor in ")}.
      The Hex package holds them. In the repository they are beside mix_project: take the dependency with \
      `git: ..., subdir: "mix_project"` (not `sparse:`) or as a path, or set DURABLE_HANDOFF_NIF to a directory with \
      prebuilt libraries.\
      """)
  end

  # A function from a library's name to the hash of its sources. The machine is part of it: a checkout may be shared
  # with a container.
  defp source_hash({:prebuilt, paths}),
    do: fn library -> "prebuilt " <> content_hash(Path.dirname(paths[library]), [paths[library]]) end

  defp source_hash({:workspace, root}) do
    hash = "#{:erlang.system_info(:system_architecture)} " <> content_hash(root, sources(root))
    fn _library -> hash end
  end

  defp sources(root) do
    fixed = Enum.map(~w(Cargo.toml Cargo.lock rust-toolchain.toml .cargo/config.toml), &Path.join(root, &1))
    native = Path.wildcard(Path.join(root, "native/**/*.{rs,toml}"))
    Enum.filter(fixed, &File.regular?/1) ++ Enum.reject(native, &String.contains?(&1, "/target/"))
  end

  defp up_to_date?(library, hash), do: File.read(stamp(library)) == {:ok, hash} and File.regular?(installed(library))

  defp built({:prebuilt, paths}, libraries), do: Map.take(paths, libraries)
  defp built({:workspace, root}, libraries), do: cargo_build(root, libraries)

  defp cargo_build(root, libraries) do
    cargo = System.get_env("CARGO") || System.find_executable("cargo") || no_cargo!()
    packages = Enum.flat_map(libraries, &["-p", &1])

    Mix.shell().info(
      "Compiling the Rust libraries of durable_handoff (cargo build --release #{Enum.join(packages, " ")})"
    )

    args = ~w(build --release --locked) ++ packages ++ ~w(--message-format json-render-diagnostics)

    # Standard error is not captured: cargo's progress and its errors reach the terminal as cargo wrote them.
    case System.cmd(cargo, args, cd: root) do
      {messages, 0} ->
        for library <- libraries do
          path = library_in(messages, library)
          {library, path || Mix.raise("cargo built #{library} but named no shared library in its messages.")}
        end

      {_messages, status} ->
        Mix.raise("cargo build of durable_handoff failed with exit status #{status}; cargo's output is above.")
    end
  end

  defp no_cargo! do
    Mix.raise("""
    durable_handoff's engine is written in Rust and cargo is not on the PATH.
    Install Rust from https://rustup.rs, or set DURABLE_HANDOFF_NIF to a directory with prebuilt libraries.\
    """)
  end

  # The stamp goes last: a build that is interrupted here is done again.
  defp install(library, path, hash) do
    File.mkdir_p!(Path.dirname(installed(library)))
    File.rm(stamp(library))
    replace!(installed(library), &File.cp!(path, &1))
    replace!(stamp(library), &File.write!(&1, hash))
  end

  defp replace!(path, write) do
    temporary = "#{path}.#{System.pid()}.tmp"
    write.(temporary)
    File.rename!(temporary, path)
  end

  defp remove(library) do
    File.rm(installed(library))
    File.rm(stamp(library))
  end

  # The VM looks for .dll on Windows and for .so everywhere else, macOS included.
  defp installed(library) do
    extension = if match?({:win32, _}, :os.type()), do: ".dll", else: ".so"
    Path.join([File.cwd!(), "priv", "native", library <> extension])
  end

  defp stamp(library), do: Path.join([File.cwd!(), "priv", "native", "#{library}.hash"])
end
