defmodule Mix.Tasks.Compile.DurableHandoffNifTest do
  # Not async: the compiler works in the current directory and with environment variables.
  use ExUnit.Case

  import DurableHandoff.EnvironmentVariables
  import DurableHandoff.OwnDirectory

  alias DurableHandoff.Build.Machine
  alias Mix.Tasks.Compile.DurableHandoffNif, as: Compiler

  @extension if match?({:win32, _}, :os.type()), do: ".dll", else: ".so"

  setup :own_directory

  # A workspace with a project beside the Rust sources, and a fake cargo that records its calls and copies the
  # sources as "libraries".
  setup %{tmp_dir: root} do
    write(root, "Cargo.toml", "[workspace.package]\nrust-version = \"1.91\"\n")
    write(root, "version", "cargo 1.91.0 (aaaaaaaaa 2025-10-28)")
    write(root, "Cargo.lock", "")
    write(root, "native/handoff_nif/src/lib.rs", "version 1")
    write(root, "native/store_nif/src/lib.rs", "store 1")
    id = System.unique_integer([:positive])

    write(root, "project/mix.exs", """
    defmodule NifFixture#{id} do
      use Mix.Project
      def project, do: [app: :nif_fixture_#{id}, version: "0.1.0", build_path: #{inspect(Path.join(root, "build"))}]
    end
    """)

    cargo =
      write(root, "bin/cargo", ~S"""
      #!/bin/sh
      root=${0%/bin/cargo}
      [ "$1" = --version ] && { cat "$root/version"; exit; }
      echo "$@" >> "$root/calls"
      echo "$CARGO_TARGET_DIR" > "$root/target_dir"
      [ -f "$root/broken" ] && exit 101
      mkdir -p "$root/target/release"
      echo '{"reason":"compiler-artifact","target":{"crate_types":["lib"],"name":"other"},"filenames":["/x/libother.rlib"]}'
      for name in handoff_nif store_nif; do
        case "$*" in *" -p $name "*) ;; *) continue ;; esac
        file=$root/target/release/lib$name.so
        cp native/$name/src/lib.rs "$file"
        echo '{"reason":"compiler-artifact","target":{"crate_types":["cdylib"],"name":"'$name'"},"filenames":["'"$file"'"],"fresh":false}'
      done
      echo '{"reason":"build-finished","success":true}'
      """)

    File.chmod!(cargo, 0o755)
    put_variables(%{"CARGO" => cargo, "CARGO_TARGET_DIR" => nil, "RUSTFLAGS" => nil, "DURABLE_HANDOFF_NIF" => nil})
    previous_shell = Mix.shell()
    Mix.shell(Mix.Shell.Quiet)
    on_exit(fn -> Mix.shell(previous_shell) end)
    {:ok, root: root, app: :"nif_fixture_#{id}"}
  end

  test "one cargo call builds both libraries, locked and in release mode, and the files that cargo reports are installed",
       context do
    assert compile(context) == {:ok, []}

    assert calls(context) == [
             "build --release --locked -p handoff_nif -p store_nif --message-format json-render-diagnostics"
           ]

    assert File.read!(installed(context)) == "version 1"
    assert File.read!(installed(context, "store_nif")) == "store 1"
  end

  describe "config :durable_handoff, store: false" do
    setup do
      Application.put_env(:durable_handoff, :store, false)
      on_exit(fn -> Application.delete_env(:durable_handoff, :store) end)
    end

    test "neither builds nor looks for the stores' library", %{root: root} = context do
      File.rm_rf!(Path.join(root, "native/store_nif"))
      assert compile(context) == {:ok, []}
      assert calls(context) == ["build --release --locked -p handoff_nif --message-format json-render-diagnostics"]
      refute File.exists?(installed(context, "store_nif"))
      assert compile(context) == {:noop, []}
    end

    test "removes a library that was built before; without the line only that library is built again", context do
      Application.delete_env(:durable_handoff, :store)
      compile(context)
      Application.put_env(:durable_handoff, :store, false)
      assert compile(context) == {:noop, []}
      refute File.exists?(installed(context, "store_nif"))
      Application.delete_env(:durable_handoff, :store)
      assert compile(context) == {:ok, []}
      assert File.exists?(installed(context, "store_nif"))

      assert List.last(calls(context)) ==
               "build --release --locked -p store_nif --message-format json-render-diagnostics"
    end

    test "needs no stores' library in DURABLE_HANDOFF_NIF", %{root: root} = context do
      put_variables(%{"DURABLE_HANDOFF_NIF" => write(root, "prebuilt.so", "prebuilt")})
      assert compile(context) == {:ok, []}
      refute File.exists?(installed(context, "store_nif"))
    end
  end

  test "the library is found through the build directory, on the first build too", context do
    compile(context)
    app_path = in_project(context, fn -> Mix.Project.app_path() end)
    assert File.read!(Path.join([app_path, "priv", "native", "handoff_nif" <> @extension])) == "version 1"
  end

  test "a build that began before another one had installed the libraries finds them too", context do
    compile(context)
    linked = Path.join(in_project(context, fn -> Mix.Project.app_path() end), "priv")
    # Mix links what it finds when the build begins.
    File.rm_rf!(linked)
    assert compile(context) == {:noop, []}
    assert File.exists?(Path.join([linked, "native", "handoff_nif" <> @extension]))
  end

  test "without a change cargo does not run", context do
    compile(context)
    assert compile(context) == {:noop, []}
    assert length(calls(context)) == 1
  end

  test "--force runs cargo without a change", context do
    compile(context)
    assert in_project(context, fn -> Compiler.run(["--force"]) end) == {:ok, []}
    assert length(calls(context)) == 2
  end

  test "a library that another machine left in the same checkout is built again", %{root: root} = context do
    compile(context)

    for stamp <- Path.wildcard(Path.join(root, "project/priv/native/*.hash")) do
      [_machine, hash] = stamp |> File.read!() |> String.split(" ")
      File.write!(stamp, "another-machine " <> hash)
    end

    assert compile(context) == {:ok, []}
    assert [both, both] = calls(context)
  end

  test "a changed, new or removed source builds again", %{root: root} = context do
    compile(context)

    for change <- [
          fn -> write(root, "native/handoff_nif/src/lib.rs", "version 2") end,
          fn -> write(root, "native/handoff_core/src/new.rs", "") end,
          fn -> File.rm!(Path.join(root, "native/handoff_core/src/new.rs")) end,
          fn -> write(root, "Cargo.lock", "changed") end,
          fn -> write(root, ".cargo/config.toml", "") end
        ] do
      before = length(calls(context))
      change.()
      assert compile(context) == {:ok, []}
      assert length(calls(context)) == before + 1
    end

    assert File.read!(installed(context)) == "version 2"
  end

  test "cargo's output beside the sources does not count as a source", %{root: root} = context do
    compile(context)
    write(root, "native/handoff_nif/target/debug/build/x/out/generated.rs", "")
    assert compile(context) == {:noop, []}
  end

  test "a deleted library is built again", context do
    compile(context)

    for library <- ["handoff_nif", "store_nif"] do
      File.rm!(installed(context, library))
      assert compile(context) == {:ok, []}
      assert File.exists?(installed(context, library))
    end
  end

  test "a library in use is replaced by a new file, never written to", %{root: root} = context do
    compile(context)
    # An open file goes on showing the old bytes only if the path now names another file.
    {:ok, in_use} = :file.open(installed(context), [:read, :raw, :binary])
    write(root, "native/handoff_nif/src/lib.rs", "version 2")
    compile(context)
    assert :file.read(in_use, 100) == {:ok, "version 1"}
    assert File.read!(installed(context)) == "version 2"
    :file.close(in_use)
    assert Path.wildcard(Path.join(Path.dirname(installed(context)), "*.tmp")) == []
  end

  test "a failed build is an error, and the next compile tries again", %{root: root} = context do
    write(root, "broken", "")
    assert_raise Mix.Error, ~r/failed with exit status 101; cargo's output is above/, fn -> compile(context) end
    refute File.exists?(installed(context))
    File.rm!(Path.join(root, "broken"))
    assert compile(context) == {:ok, []}
  end

  test "a failed build leaves the earlier library, which does not count as up to date",
       %{root: root} = context do
    compile(context)
    write(root, "broken", "")
    write(root, "native/handoff_nif/src/lib.rs", "version 2")
    assert_raise Mix.Error, fn -> compile(context) end
    assert File.read!(installed(context)) == "version 1"
    File.rm!(Path.join(root, "broken"))
    assert compile(context) == {:ok, []}
    assert File.read!(installed(context)) == "version 2"
  end

  test "without cargo the error says what to do", %{root: root} = context do
    put_variables(%{"CARGO" => nil, "PATH" => Path.join(root, "empty")})
    assert_raise Mix.Error, ~r/rustup\.rs.*DURABLE_HANDOFF_NIF/s, fn -> compile(context) end
  end

  test "a Rust that is too old is named with its version and the one that is needed, before anything is built",
       %{root: root} = context do
    for program <- ["cargo", "rustc"] do
      write(root, "version", "#{program} 1.63.0 (fd542dfac 2022-06-29)")
      assert_raise Mix.Error, ~r/cargo is of Rust 1\.63, and durable_handoff needs 1\.91/, fn -> compile(context) end
    end

    refute File.exists?(Path.join(root, "calls"))
    # A cargo wrapper that does not print a version is used.
    write(root, "version", "who knows")
    assert compile(context) == {:ok, []}
  end

  test "cargo's target directory: the usual one in the repository, outside of a package's directory",
       %{root: root} = context do
    compile(context)
    assert File.read!(Path.join(root, "target_dir")) == "\n"

    # Now the sources are in the project, as in the package.
    for name <- ~w(Cargo.toml Cargo.lock native),
        do: File.rename!(Path.join(root, name), Path.join(root, "project/#{name}"))

    in_project(context, fn -> Compiler.run(["--force"]) end)
    app_path = in_project(context, fn -> Mix.Project.app_path() end)
    assert File.read!(Path.join(root, "target_dir")) == Path.join(app_path, "cargo") <> "\n"

    put_variables(%{"CARGO_TARGET_DIR" => "/elsewhere"})
    in_project(context, fn -> Compiler.run(["--force"]) end)
    assert File.read!(Path.join(root, "target_dir")) == "/elsewhere\n"
  end

  test "a failed build on a machine without a C compiler names what is missing", %{root: root} = context do
    write(root, "broken", "")
    put_variables(%{"CC" => Path.join(root, "no-cc")})
    assert_raise Mix.Error, ~r/exit status 101.*There is no C compiler.*build-base/s, fn -> compile(context) end
  end

  test "without the sources the error says where they should come from", %{root: root} = context do
    File.rm_rf!(Path.join(root, "native"))
    assert_raise Mix.Error, ~r/subdir: "mix_project"/, fn -> compile(context) end
  end

  describe "DURABLE_HANDOFF_NIF" do
    test "a directory with both libraries is installed without cargo or sources", %{root: root} = context do
      File.rm_rf!(Path.join(root, "native"))
      write(root, "prebuilt/libhandoff_nif.so", "prebuilt 1")
      write(root, "prebuilt/store_nif.dylib", "prebuilt store")
      put_variables(%{"DURABLE_HANDOFF_NIF" => Path.join(root, "prebuilt")})
      assert compile(context) == {:ok, []}
      assert compile(context) == {:noop, []}
      assert File.read!(installed(context)) == "prebuilt 1"
      assert File.read!(installed(context, "store_nif")) == "prebuilt store"
      refute File.exists?(Path.join(root, "calls"))

      write(root, "prebuilt/libhandoff_nif.so", "prebuilt 2")
      assert compile(context) == {:ok, []}
      assert File.read!(installed(context)) == "prebuilt 2"
    end

    test "the engine's file can have any name, with the stores' library beside it", %{root: root} = context do
      use_prebuilt(root, "prebuilt")
      assert compile(context) == {:ok, []}
      assert File.read!(installed(context)) == "prebuilt"
      assert File.read!(installed(context, "store_nif")) == "prebuilt store"
    end

    test "is unset again: the libraries are built from the sources", %{root: root} = context do
      use_prebuilt(root, "prebuilt")
      compile(context)
      put_variables(%{"DURABLE_HANDOFF_NIF" => nil})
      assert compile(context) == {:ok, []}
      assert File.read!(installed(context)) == "version 1"
    end

    test "without cargo its libraries stay until a source changes, as in a release of a compiled tree",
         %{root: root} = context do
      use_prebuilt(root, "prebuilt")
      compile(context)
      put_variables(%{"DURABLE_HANDOFF_NIF" => nil, "CARGO" => Path.join(root, "no-cargo")})
      assert compile(context) == {:noop, []}
      assert File.read!(installed(context)) == "prebuilt"

      write(root, "native/handoff_nif/src/lib.rs", "version 2")
      assert_raise Mix.Error, ~r/cargo is not on the PATH/, fn -> compile(context) end
    end

    test "a library that needs a newer glibc than the machine has is an error that says so", %{root: root} = context do
      use_prebuilt(root, <<0x7F, "ELF", 0, "GLIBC_999.1", 0>>)

      if Machine.glibc() do
        assert_raise Mix.Error, ~r/needs glibc 999\.1.*on the system that it runs on/s, fn -> compile(context) end
      else
        assert compile(context) == {:ok, []}
      end
    end

    test "a path without a file is an error", %{root: root} = context do
      put_variables(%{"DURABLE_HANDOFF_NIF" => Path.join(root, "nowhere.so")})

      assert_raise Mix.Error, ~r/DURABLE_HANDOFF_NIF is set to .*nowhere\.so, but there is no such file/, fn ->
        compile(context)
      end
    end

    test "the error for a missing stores' library says how to leave it out", %{root: root} = context do
      put_variables(%{"DURABLE_HANDOFF_NIF" => write(root, "prebuilt.so", "prebuilt")})
      assert_raise Mix.Error, ~r/there is no store_nif in .*store: false/s, fn -> compile(context) end
    end
  end

  test "clean removes what was installed, and the next compile builds", context do
    compile(context)
    assert in_project(context, fn -> Compiler.clean() end) == :ok
    for library <- ["handoff_nif", "store_nif"], do: refute(File.exists?(installed(context, library)))
    assert compile(context) == {:ok, []}
  end

  test "the manifests exist after a compile", context do
    compile(context)
    assert [_engine, _store] = manifests = in_project(context, fn -> Compiler.manifests() end)
    assert Enum.all?(manifests, &File.regular?/1)
  end

  describe "content_hash/2" do
    test "is the same for the same tree in another place and in another order", %{root: root} do
      a = for name <- ["x.rs", "y.rs"], do: write(root, "a/#{name}", name)
      b = for name <- ["x.rs", "y.rs"], do: write(root, "b/#{name}", name)

      assert Compiler.content_hash(Path.join(root, "a"), a) ==
               Compiler.content_hash(Path.join(root, "b"), Enum.reverse(b))
    end

    test "distinguishes names, contents and the end of each file", %{root: root} do
      trees = [[{"x", "ab"}], [{"y", "ab"}], [{"x", "ba"}], [{"x", "a"}, {"b", ""}], [{"x", "a"}, {"", "b"}], []]

      hashes =
        for {tree, n} <- Enum.with_index(trees) do
          files = for {name, bytes} <- tree, do: write(root, "#{n}/f#{name}", bytes)
          Compiler.content_hash(Path.join(root, "#{n}"), files)
        end

      assert Enum.uniq(hashes) == hashes
    end
  end

  defp write(root, path, text) do
    path = Path.join(root, path)
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, text)
    path
  end

  # Sets DURABLE_HANDOFF_NIF to a file with this engine, beside which is a library of the stores.
  defp use_prebuilt(root, engine) do
    write(root, "libstore_nif.so", "prebuilt store")
    put_variables(%{"DURABLE_HANDOFF_NIF" => write(root, "any.so", engine)})
  end

  defp compile(context), do: in_project(context, fn -> Compiler.run([]) end)

  defp in_project(%{root: root, app: app}, fun) do
    Mix.Project.in_project(app, Path.join(root, "project"), fn _module -> fun.() end)
  end

  defp installed(%{root: root}, library \\ "handoff_nif"),
    do: Path.join([root, "project", "priv", "native", library <> @extension])

  defp calls(%{root: root}), do: root |> Path.join("calls") |> File.read!() |> String.split("\n", trim: true)
end
