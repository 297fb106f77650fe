defmodule Mix.Tasks.Compile.DurableHandoffNif do
  @moduledoc """
  Puts the Rust libraries of durable_handoff into `priv/native`: `handoff_nif`, the engine and the codec, and
  `store_nif`, the stores.

  They come from the first of these:

    1. `DURABLE_HANDOFF_NIF`: a directory with both, or the file of the first with the second beside it;
    2. a precompiled archive, if the package has a checksum of one for this machine: from the cache, or
       downloaded. An archive whose checksum is wrong is always an error;
    3. cargo, from the Rust sources in the package. It needs the version that `Cargo.toml` names and a C
       compiler.

  `config :durable_handoff, store: false` leaves the stores out: they are neither built nor installed, and
  `DurableHandoff.Store` raises an error that says so. After a change of that line, run
  `mix deps.compile durable_handoff --force`.

  Guarantees:

    * Nothing is built or downloaded unless a source or the machine has changed, or `--force` is given. A
      stamp beside each library says from what it was built, so several build directories (environments,
      Elixir versions) share one. The machine is the architecture and the C library with its version, so a
      tree that another container uses is built again there.
    * A library in use is never written to. The new library is a new file of the same name; a running VM keeps
      the old one open until it restarts.

  docs/guides/libraries.md has the environment variables, and what to do on which system.
  `DURABLE_HANDOFF_BUILD` builds although there is an archive. cargo reads `CARGO_TARGET_DIR` and its own
  configuration files as usual; `CARGO` names another cargo.
  """

  use Mix.Task.Compiler

  alias DurableHandoff.Build.{Cargo, Machine, Precompiled}

  @engine "handoff_nif"
  @store "store_nif"

  @impl true
  def run(args) do
    unless @store in libraries(), do: remove(@store)
    sources = sources(Machine.id())

    outdated = Enum.reject(sources, &(up_to_date?(&1) and "--force" not in args))
    install(outdated)
    # priv may not have existed when Mix linked it into the build directory. Another build may have installed the
    # libraries since then.
    Mix.Project.build_structure()
    {if(outdated == [], do: :noop, else: :ok), []}
  end

  @impl true
  def manifests, do: Enum.map(libraries(), &stamp/1)

  @impl true
  def clean, do: Enum.each([@engine, @store], &remove/1)

  @doc "The files of the installed libraries, by name."
  def installed, do: Map.new(libraries(), &{&1, installed(&1)})

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

  defp libraries, do: if(Application.get_env(:durable_handoff, :store, true), do: [@engine, @store], else: [@engine])

  # The source of each library, and the stamps that are valid for it.
  defp sources(machine) do
    root = workspace()
    hash = root && content_hash(root, rust_sources(root))

    # Without glibc's version, which is checked against what the library needs.
    given = "#{Machine.kind()} prebuilt #{hash} "

    case System.get_env("DURABLE_HANDOFF_NIF", "") do
      "" ->
        to_build = %{root: root, stamp: "#{machine} #{hash}", given: given, machine: machine}
        for library <- libraries(), do: Map.merge(to_build, %{library: library, archive: Precompiled.archive(library)})

      path ->
        for library <- libraries(), file = prebuilt(library, Path.expand(path)) do
          %{library: library, file: file, stamp: given <> content_hash(Path.dirname(file), [file])}
        end
    end
  end

  defp up_to_date?(%{library: library} = source) do
    with {:ok, stamp} <- File.read(stamp(library)), true <- File.regular?(installed(library)) do
      stamp == source.stamp or stamp == archive_stamp(source) or given?(source, stamp)
    else
      _none -> false
    end
  end

  # The library was installed from DURABLE_HANDOFF_NIF for exactly these sources. It stays if none can be
  # built, as in `mix release` of a compiled tree.
  defp given?(%{root: root, given: given, library: library}, stamp) do
    root != nil and String.starts_with?(stamp, given) and Cargo.find() == nil and
      Machine.fits(File.read!(installed(library))) == :ok
  end

  defp given?(_source, _stamp), do: false

  defp archive_stamp(%{archive: %{sha256: sha256}, machine: machine}), do: "#{machine} precompiled #{sha256}"
  defp archive_stamp(_source), do: nil

  defp install(sources) do
    {given, others} = Enum.split_with(sources, &Map.has_key?(&1, :file))
    for source <- given, do: put(source.library, &File.cp!(source.file, &1), source.stamp)

    unfinished = Enum.flat_map(others, &fetched/1)
    if unfinished != [], do: build(unfinished)
  end

  # Returns [] when the precompiled library is installed, else the library to be built and the reason.
  defp fetched(%{archive: nil} = source), do: [{source, nil}]

  defp fetched(%{archive: archive, library: library} = source) do
    case Precompiled.fetch(archive) do
      {:ok, bytes} ->
        put(library, &File.write!(&1, bytes), archive_stamp(source))
        []

      {:error, reason} ->
        [{source, reason}]
    end
  end

  defp build(unfinished) do
    reasons = for {_source, reason} <- unfinished, reason, do: "No precompiled library: #{reason}.\n"
    sources = for {source, _reason} <- unfinished, do: source
    cargo = Cargo.find() || no_cargo!(reasons)
    root = hd(sources).root || no_sources!()
    for reason <- reasons, do: Mix.shell().info(reason <> "Building it with cargo instead.")
    files = Cargo.build!(cargo, root, Enum.map(sources, & &1.library), target(root))
    for source <- sources, do: put(source.library, &File.cp!(files[source.library], &1), source.stamp)
  end

  # A dependency's directory is fetched again for each version, and may be a layer of an image, so cargo's
  # gigabytes of build output do not belong there.
  defp target(root) do
    deps = Mix.Project.deps_path() <> "/"

    if System.get_env("CARGO_TARGET_DIR", "") == "" and (root == File.cwd!() or String.starts_with?(root, deps)),
      do: Path.join(Mix.Project.app_path(), "cargo")
  end

  # The engine's file may have any name.
  defp prebuilt(library, path) do
    directory = if File.dir?(path), do: path, else: Path.dirname(path)
    found = Enum.find(Cargo.file_names(library), &File.regular?(Path.join(directory, &1)))

    file =
      cond do
        library == @engine and File.regular?(path) -> path
        found -> Path.join(directory, found)
        true -> no_prebuilt!(library, path, directory)
      end

    with {:error, reason} <- Machine.fits(File.read!(file)) do
      Mix.raise("DURABLE_HANDOFF_NIF: #{file} does not load here: #{reason}. Build it on the system that it runs on.")
    end

    file
  end

  defp no_prebuilt!(library, path, directory) do
    missing =
      if File.exists?(path),
        do: "there is no #{library} in #{directory} (#{Enum.join(Cargo.file_names(library), ", ")})",
        else: "there is no such file or directory"

    leave_out = if library == @store, do: " To do without stores, configure `config :durable_handoff, store: false`."

    Mix.raise("""
    DURABLE_HANDOFF_NIF is set to #{path}, but #{missing}.
    Point it at a directory with #{Enum.join(libraries(), " and ")}, or unset it to build with cargo.#{leave_out}\
    """)
  end

  # The Hex package has the Rust sources in it, the repository has them beside mix_project.
  defp workspace, do: Enum.find(roots(), &sources?/1)

  defp roots, do: [File.cwd!(), Path.expand("..", File.cwd!())]

  defp sources?(root),
    do: File.regular?(Path.join(root, "Cargo.toml")) and File.dir?(Path.join(root, "native/#{@engine}"))

  defp no_sources! do
    Mix.raise("""
    The Rust sources of durable_handoff are neither in #{Enum.join(roots(), " nor in ")}.
    The Hex package holds them. In the repository they are beside mix_project: take the dependency with \
    `git: ..., subdir: "mix_project"` (not `sparse:`) or as a path, or set DURABLE_HANDOFF_NIF to a directory with \
    prebuilt libraries.\
    """)
  end

  defp no_cargo!(reasons) do
    Mix.raise("""
    #{reasons}durable_handoff's engine is written in Rust and cargo is not on the PATH.
    Install Rust from https://rustup.rs and a C compiler, or set DURABLE_HANDOFF_NIF to a directory with prebuilt \
    libraries. In a Dockerfile both belong into the stage that runs `mix deps.compile`.\
    """)
  end

  defp rust_sources(root) do
    fixed = Enum.map(~w(Cargo.toml Cargo.lock rust-toolchain.toml .cargo/config.toml), &Path.join(root, &1))
    native = Path.wildcard(Path.join(root, "native/**/*.{rs,toml}"))
    Enum.filter(fixed, &File.regular?/1) ++ Enum.reject(native, &String.contains?(&1, "/target/"))
  end

  # The stamp is written last, so that an interrupted build is repeated.
  defp put(library, write, stamp) do
    File.mkdir_p!(Path.dirname(installed(library)))
    File.rm(stamp(library))
    replace!(installed(library), write)
    replace!(stamp(library), &File.write!(&1, stamp))
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
