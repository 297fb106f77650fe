defmodule DurableHandoff.Build.PrecompiledTest do
  # Not async: it works in the current directory and with environment variables.
  use ExUnit.Case

  import DurableHandoff.EnvironmentVariables
  import DurableHandoff.OwnDirectory

  alias DurableHandoff.Build.{Machine, Precompiled}
  alias DurableHandoff.LoopbackServer, as: Server
  alias Mix.Tasks.Compile.DurableHandoffNif, as: Compiler

  @libraries ["handoff_nif", "store_nif"]

  setup :own_directory

  # A project as Hex unpacks it, archives as they are published, and no Rust.
  setup %{tmp_dir: root} do
    id = System.unique_integer([:positive])
    project = Path.join(root, "project")
    File.mkdir_p!(project)

    File.write!(Path.join(project, "mix.exs"), """
    defmodule PrecompiledFixture#{id} do
      use Mix.Project
      def project, do: [app: :precompiled_#{id}, version: "1.2.3", build_path: #{inspect(Path.join(root, "build"))}]
    end
    """)

    previous_shell = Mix.shell()
    Mix.shell(Mix.Shell.Process)
    on_exit(fn -> Mix.shell(previous_shell) end)

    put_variables(%{
      "CARGO" => Path.join(root, "no-cargo"),
      "DURABLE_HANDOFF_NIF" => nil,
      "DURABLE_HANDOFF_BUILD" => nil,
      "DURABLE_HANDOFF_CACHE" => Path.join(root, "cache"),
      "DURABLE_HANDOFF_URL" => "http://127.0.0.1:9",
      "http_proxy" => nil,
      "HTTP_PROXY" => nil
    })

    context = %{root: root, project: project, app: :"precompiled_#{id}", archives: Path.join(root, "archives")}
    in_project(context, fn -> publish(context) end)
    {:ok, context}
  end

  test "archives are named as rustler_precompiled names them" do
    for {triple, name} <- [
          {"aarch64-apple-darwin", "libstore_nif-v0.1.0-nif-2.15-aarch64-apple-darwin.so.tar.gz"},
          {"x86_64-pc-windows-msvc", "store_nif-v0.1.0-nif-2.15-x86_64-pc-windows-msvc.dll.tar.gz"}
        ],
        do: assert(Precompiled.name("store_nif", "0.1.0", triple) == name)
  end

  test "both libraries are downloaded, checked, installed and kept, once", context do
    server = serve(context)
    assert compile(context) == {:ok, []}
    assert installed(context) == ["handoff_nif of #{Machine.triple()}", "store_nif of #{Machine.triple()}"]
    assert compile(context) == {:noop, []}
    assert length(Server.requests(server)) == 2
    assert length(File.ls!(Path.join(context.root, "cache"))) == 2
  end

  test "offline, the cache is enough", context do
    serve(context)
    compile(context)
    File.rm_rf!(Path.join(context.project, "priv"))
    put_variables(%{"DURABLE_HANDOFF_URL" => "http://127.0.0.1:9"})
    assert compile(context) == {:ok, []}
    assert [_engine, _store] = installed(context)
  end

  test "a wrong checksum is an error, also where cargo could build", context do
    put_variables(%{"CARGO" => System.find_executable("true")})
    server = start_supervised!({Server, fn _request -> Server.ok("other bytes") end})
    put_variables(%{"DURABLE_HANDOFF_URL" => Server.url(server)})
    assert_raise Mix.Error, ~r/has the SHA-256 .* but the package says .*do not use it/s, fn -> compile(context) end
    assert installed(context) == []
    refute File.exists?(Path.join(context.root, "cache"))
  end

  test "a cached file with a wrong checksum is an error that names the file", context do
    [name | _] = archives(context)
    path = Path.join([context.root, "cache", name])
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, "damaged")
    assert_raise Mix.Error, ~r/#{Regex.escape(path)} has the SHA-256.*Remove that file/s, fn -> compile(context) end
  end

  test "without the archive, and without cargo, the error names both", context do
    server = start_supervised!({Server, fn _request -> Server.status("404 Not Found") end})
    put_variables(%{"DURABLE_HANDOFF_URL" => Server.url(server)})

    error = assert_raise Mix.Error, fn -> compile(context) end
    assert error.message =~ "the server answered 404 Not Found"
    assert error.message =~ "cargo is not on the PATH"
  end

  test "without the archive cargo builds and says why, and the next compile does nothing", context do
    server = start_supervised!({Server, fn _request -> Server.status("404 Not Found") end})
    put_variables(%{"DURABLE_HANDOFF_URL" => Server.url(server), "CARGO" => cargo(context)})
    assert compile(context) == {:ok, []}
    assert installed(context) == ["built handoff_nif", "built store_nif"]
    assert_received {:mix_shell, :info, ["No precompiled library: " <> _]}
    assert compile(context) == {:noop, []}
    assert length(Server.requests(server)) == 2
  end

  test "DURABLE_HANDOFF_BUILD builds without asking for an archive", context do
    put_variables(%{"DURABLE_HANDOFF_BUILD" => "1", "CARGO" => cargo(context)})
    assert compile(context) == {:ok, []}
    assert installed(context) == ["built handoff_nif", "built store_nif"]
  end

  test "an archive for a newer glibc is not installed", context do
    in_project(context, fn -> publish(context, <<0x7F, "ELF", 0, "GLIBC_999.1", 0>>) end)
    serve(context)
    # A machine with another C library cannot check this and installs the library.
    if Machine.glibc() do
      assert_raise Mix.Error, ~r/it needs glibc 999.1 or newer/, fn -> compile(context) end
      assert installed(context) == []
    else
      assert compile(context) == {:ok, []}
    end
  end

  test "an archive without the library is not installed", context do
    for bytes <- ["no archive", :zlib.gzip("no archive")] do
      in_project(context, fn ->
        for name <- archives(context), do: File.write!(Path.join(context.archives, name), bytes)
        checksums(context)
      end)

      File.rm_rf!(Path.join(context.root, "cache"))
      serve(context)
      assert_raise Mix.Error, ~r/it cannot be unpacked/, fn -> compile(context) end
      assert installed(context) == []
    end
  end

  test "mix durable_handoff.archive packs the installed libraries and writes the checksums of all archives", context do
    serve(context)
    compile(context)
    output = Path.join(context.root, "again")
    other = "libhandoff_nif-v1.2.3-nif-2.15-aarch64-apple-darwin.so.tar.gz"
    File.mkdir_p!(output)
    File.write!(Path.join(output, other), "from another machine")
    in_project(context, fn -> Mix.Tasks.DurableHandoff.Archive.run(["--output", output]) end)
    assert Map.keys(Precompiled.checksums(output)) == Enum.sort([other | archives(context)])
  end

  # Packs "libraries" for this machine, and puts their checksums into the project.
  defp publish(context, bytes \\ nil) do
    for library <- @libraries do
      file = Path.join(context.root, library)
      File.write!(file, bytes || "#{library} of #{Machine.triple()}")
      Precompiled.pack!(file, library, context.archives, Machine.triple())
    end

    checksums(context)
  end

  defp checksums(context) do
    Precompiled.write_checksums!(context.archives)
    name = Precompiled.checksums_file()
    File.cp!(Path.join(context.archives, name), Path.join(context.project, name))
  end

  defp archives(context), do: context.archives |> Path.join("*.tar.gz") |> Path.wildcard() |> Enum.map(&Path.basename/1)

  defp serve(context) do
    answer = fn "GET /" <> rest ->
      [name | _] = String.split(rest, " ")
      Server.ok(File.read!(Path.join(context.archives, name)))
    end

    server = start_supervised!({Server, answer}, id: make_ref())
    put_variables(%{"DURABLE_HANDOFF_URL" => Server.url(server)})
    server
  end

  # The sources, and a cargo that "builds" them.
  defp cargo(%{root: root, project: project}) do
    for library <- @libraries, do: File.mkdir_p!(Path.join(project, "native/#{library}"))
    File.write!(Path.join(project, "Cargo.toml"), "[workspace]")
    cargo = Path.join(root, "cargo")

    File.write!(cargo, ~S"""
    #!/bin/sh
    for name in handoff_nif store_nif; do
      file=${0%/cargo}/lib$name.so
      printf 'built %s' $name > "$file"
      echo '{"reason":"compiler-artifact","target":{"crate_types":["cdylib"]},"filenames":["'"$file"'"]}'
    done
    """)

    File.chmod!(cargo, 0o755)
    cargo
  end

  defp compile(context), do: in_project(context, fn -> Compiler.run([]) end)

  defp in_project(%{project: project, app: app}, fun),
    do: Mix.Project.in_project(app, project, fn _module -> fun.() end)

  defp installed(%{project: project}) do
    for library <- @libraries,
        {:ok, text} <- [File.read(Path.join([project, "priv", "native", library <> extension()]))],
        do: text
  end

  defp extension, do: if(match?({:win32, _}, :os.type()), do: ".dll", else: ".so")
end
