defmodule DurableHandoff.NativeTest do
  # Not async: one of its tests loads code that others run.
  use ExUnit.Case

  import DurableHandoff.EngineTerms, only: [view: 1]
  import DurableHandoff.OwnDirectory

  alias DurableHandoff.{Codec, Drain, EngineTerms, Native, NativeError, Options, Report, Store}
  alias DurableHandoff.Native.Library

  @source %{name: "a@h", started_at_ms: nil, generation: nil, region: nil}
  @config EngineTerms.config(%{source: @source})

  test "the engine is loaded" do
    assert Native.check() == :ok
  end

  test "every function of a library has a stub, and every stub is replaced" do
    assert :ok = Store.Native.load()
    assert :ok = Store.Native.load()

    for module <- [Native, Store.Native],
        {name, arity} <- module.__info__(:functions),
        {name, arity} not in [check: 0, load: 0, on_load: 0] do
      # The library may return anything for these terms, mostly an ArgumentError. Only a stub raises
      # NativeError.
      try do
        apply(module, name, List.duplicate(:wrong, arity))
      rescue
        error in NativeError -> flunk("#{name}/#{arity}: #{Exception.message(error)}")
        _error in [ArgumentError, ErlangError] -> :ok
      end
    end
  end

  test "a module of stubs has no anonymous functions, which crash the VM after a refused reload" do
    for module <- [Native, Store.Native] do
      {:ok, {_module, locals: locals}} = module |> :code.which() |> :beam_lib.chunks([:locals])
      assert for({name, _arity} <- locals, Atom.to_string(name) =~ "-fun-", do: name) == []
    end
  end

  test "ranges, defaults and reasons equal those of the engine" do
    {defaults, ranges} = Native.config()
    ranges = Map.new(ranges, fn {name, low, high} -> {name, {:integer, low, high}} end)
    schema = Options.schema()

    for {name, _value} <- Options.engine(Options.new!(true)) do
      assert schema[name][:default] == Map.fetch!(defaults, name), "default of #{name}"
    end

    for {name, range} <- ranges, entry = schema[String.to_atom(name)] do
      assert entry[:type] in [range, {:optional, range}], "range of #{name}"
    end

    assert Enum.map(Native.reasons(), fn {reason, _code} -> reason end) == Report.reasons()
  end

  test "the words of a progress and of a report equal those of the engine" do
    words = %{idle: Report.idles(), ended: Report.endings(), waits_for: Drain.Progress.waits_for()}
    assert Native.words() == words
  end

  test "one drain of one server, step by step" do
    {:ok, engine} = Native.engine_new(@config, [{0, 0, 0}], view(["b@h"]), 1)
    assert {:ok, [{:start, 0, "b@h", 1, timeout_ms}], _wake} = Native.engine_poll(engine, 2)
    assert timeout_ms in 1..15_000
    assert :ok = Native.engine_event(engine, 3, {:finished, 0, 1, {:moved, nil}, 1})
    assert {:ok, [:finish], _wake} = Native.engine_poll(engine, 4)
    assert %{total: 1, moved: 1, finished: true} = Native.engine_progress(engine)
    assert %{ended: :done, targets: [{"b@h", 1}]} = Native.engine_report(engine, 5)
    assert Native.engine_results(engine) == <<0>>
  end

  test "invalid values are refused, with all problems" do
    assert {:error, {:invalid, [_ | _] = problems}} =
             Native.engine_new(%{@config | timeout_ms: 0, max_attempts: 0}, [], view([]), 1)

    assert length(problems) == 2
  end

  test "the clock's times are always valid for the engine" do
    now = DurableHandoff.Clock.now_us()
    assert now >= 0
    assert DurableHandoff.Clock.now_us() >= now
  end

  describe "without the library" do
    setup :own_directory

    setup %{tmp_dir: tmp_dir} do
      ebin = Path.join([tmp_dir, "durable_handoff", "ebin"])
      File.mkdir_p!(ebin)

      for beam <- Path.wildcard(Path.join(Mix.Project.compile_path(), "*.{beam,app}")),
          do: File.cp!(beam, Path.join(ebin, Path.basename(beam)))

      {:ok, ebin: ebin}
    end

    test "each call's error has its path, the cause and what to do", %{ebin: ebin} do
      output = elixir(ebin, "DurableHandoff.Native.reasons()")
      assert output =~ "(DurableHandoff.NativeError) the Rust library handoff_nif of durable_handoff is not loaded."
      assert output =~ Path.join([Path.dirname(ebin), "priv", "native", "handoff_nif"])
      assert output =~ "load_failed"
      assert output =~ "DURABLE_HANDOFF_NIF"
    end

    test "in a release, without Mix, the error says where to build it", %{ebin: ebin} do
      output = elixir(ebin, "System.put_env(~s(RELEASE_ROOT), ~s(/app)); DurableHandoff.Native.reasons()")
      assert output =~ "build the release on the system that it runs on"
      refute output =~ "mix deps.compile"
    end

    test "a supervisor with handoff does not start, one without does", %{ebin: ebin} do
      fake_host = """
      defmodule DurableServer.LifecycleManager do end
      defmodule DurableServer.Supervisor do
        def child_spec(opts), do: %{id: opts[:name], start: {Agent, :start_link, [fn -> 1 end]}}
      end
      """

      assert elixir(ebin, fake_host <> "DurableHandoff.Supervisor.start_link(name: S, handoff_on_shutdown: true)") =~
               "the Rust library handoff_nif of durable_handoff is not loaded"

      assert elixir(ebin, fake_host <> "IO.inspect DurableHandoff.Supervisor.start_link(name: S)") =~ "{:ok, #PID<"
    end
  end

  test "a library of another version is refused when it is loaded, not when a drain calls what it lacks" do
    for {module, name} <- [{Native, "handoff_nif"}, {Store.Native, "store_nif"}] do
      path = Path.join([:code.priv_dir(:durable_handoff), "native", name])

      stubs =
        for {function, arity} <- module.__info__(:functions),
            function not in [:check, :load, :on_load],
            do: "def #{function}(#{Enum.map_join(1..arity//1, ", ", &"_#{&1}")}), do: :erlang.nif_error(:stub)\n"

      code = """
      defmodule #{inspect(module)} do
        def load(version), do: :erlang.load_nif(~c"#{path}", version)
        #{stubs}
      end
      IO.inspect(older: #{inspect(module)}.load("0.0.1"))
      IO.inspect(without: #{inspect(module)}.load(0))
      IO.inspect(own: #{inspect(module)}.load("#{Application.spec(:durable_handoff, :vsn)}"))
      """

      # A VM in which the real module, which loads the library, is not found.
      output = elixir(Path.dirname(path), code)
      assert output =~ "older: {:error, {:load, "
      assert output =~ "without: {:error, {:load, "
      assert output =~ "own: :ok"
    end

    assert Exception.message(%NativeError{path: "/p", reason: {:load, ~c"unsuccessful"}}) =~ "of another version"
  end

  test "a stub that the loaded library does not replace says that the library is of other sources" do
    assert {:error, %NativeError{path: "/p", reason: :not_loaded} = error} = Library.check({"/p", :not_loaded})
    assert Library.missing("/p", {:error, error}) == error
    assert Exception.message(Library.missing("/p", :ok)) =~ "it lacks a function: it was built from other sources"
  end

  # The VM logs a warning.
  @tag :capture_log
  test "a reload of the module is refused while the library is in use, and the running code keeps working" do
    assert :ok = Store.Native.load()
    {:ok, engine} = Native.engine_new(@config, [{0, 0, 0}], view(["b@h"]), 1)
    {:ok, %{state: store}} = Store.init_backend(url: "memory:#{inspect(make_ref())}")

    for module <- [Native, Store.Native] do
      assert {:error, :on_load_failure} = :code.load_file(module)
      assert module.check() == :ok
    end

    assert Codec.decode!(Codec.encode!(%{"a" => 1})) == %{"a" => 1}
    assert {:ok, [{:start, 0, "b@h", 1, _timeout_ms}], _wake} = Native.engine_poll(engine, 2)
    assert {:ok, %{etag: etag}} = Store.put_object(store, "k", %{"b" => 2})
    assert :ok = Store.delete_object(store, "k", etag: etag)
  end

  describe "the library of the stores" do
    test "is available to a process that calls it while another one loads it" do
      assert :ok = Store.Native.load()
      # Loaded, and not recorded yet.
      :persistent_term.erase(Store.Native)
      assert :ok = Store.Native.load()
      assert {:ok, _backend} = Store.init_backend(url: "memory:")
    end

    test "is loaded only when a store is opened" do
      code = """
      {:module, module} = Code.ensure_loaded(DurableHandoff.Store.Native)
      DurableHandoff.Codec.encode!(1)
      IO.inspect(unused: module.check() == :ok)
      {:ok, _backend} = DurableHandoff.Store.init_backend(url: "memory:")
      IO.inspect(opened: module.check())
      """

      output = elixir(Mix.Project.compile_path(), code)
      assert output =~ "unused: false"
      assert output =~ "opened: :ok"
    end

    test "is not looked for when the configuration leaves it out" do
      code = """
      Application.put_env(:durable_handoff, :store, false)
      DurableHandoff.Store.init_backend(url: "memory:")
      """

      output = elixir(Mix.Project.compile_path(), code)
      assert output =~ "(DurableHandoff.NativeError) the Rust library store_nif of durable_handoff is not loaded."
      assert output =~ "config :durable_handoff, store: false"
      assert output =~ "mix deps.compile durable_handoff --force"
    end
  end

  # Runs in a separate VM, because this one has loaded the libraries.
  defp elixir(ebin, code) do
    {output, _status} =
      System.cmd(System.find_executable("elixir"), ["-pa", ebin, "-e", code],
        stderr_to_stdout: true,
        env: [{"ERL_FLAGS", nil}]
      )

    output
  end
end
