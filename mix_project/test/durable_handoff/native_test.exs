defmodule DurableHandoff.NativeTest do
  use ExUnit.Case, async: true

  import DurableHandoff.EngineTerms, only: [view: 1]

  alias DurableHandoff.{EngineTerms, Native, NativeError}

  @source %{name: "a@h", started_at_ms: nil, generation: nil, region: nil}
  @config EngineTerms.config(%{source: @source})

  test "the engine is loaded" do
    assert Native.check() == :ok
  end

  test "every function of the library has a stub, and every stub is replaced" do
    assert [_ | _] = Native.reasons()

    for {name, arity} <- Native.__info__(:functions), name not in [:load, :check, :reasons] do
      # The library does what it does with such terms, an ArgumentError for most; only a stub raises NativeError.
      try do
        apply(Native, name, List.duplicate(:wrong, arity))
      rescue
        error in DurableHandoff.NativeError -> flunk("#{name}/#{arity}: #{Exception.message(error)}")
        _error in [ArgumentError, ErlangError] -> :ok
      end
    end
  end

  test "one drain of one server, by hand" do
    {:ok, engine} = Native.engine_new(@config, [{0, 0, 0}], view(["b@h"]), 1)
    assert {:ok, [{:start, 0, "b@h", 1, timeout_ms}], _wake} = Native.engine_poll(engine, 2)
    assert timeout_ms in 1..15_000
    assert :ok = Native.engine_event(engine, 3, {:finished, 0, 1, {:moved, nil}, 1})
    assert {:ok, [:finish], _wake} = Native.engine_poll(engine, 4)
    assert %{total: 1, moved: 1, finished: true} = Native.engine_progress(engine)
    assert %{ended: :done, targets: [{"b@h", 1}]} = Native.engine_report(engine, 5)
    assert Native.engine_results(engine) == <<0>>
  end

  test "wrong values are refused with every problem" do
    assert {:error, {:invalid, [_ | _] = problems}} =
             Native.engine_new(%{@config | timeout_ms: 0, max_attempts: 0}, [], view([]), 1)

    assert length(problems) == 2
  end

  test "the clock never gives the engine a time it cannot take" do
    now = DurableHandoff.Clock.now_us()
    assert now >= 0
    assert DurableHandoff.Clock.now_us() >= now
  end

  describe "without the library" do
    @describetag :tmp_dir

    setup %{tmp_dir: tmp_dir} do
      ebin = Path.join([tmp_dir, "durable_handoff", "ebin"])
      File.mkdir_p!(ebin)

      for beam <- Path.wildcard(Path.join(Mix.Project.compile_path(), "*.{beam,app}")),
          do: File.cp!(beam, Path.join(ebin, Path.basename(beam)))

      {:ok, ebin: ebin}
    end

    # In a VM of its own: this one has the library.
    defp elixir(ebin, code) do
      {output, _status} =
        System.cmd(System.find_executable("elixir"), ["-pa", ebin, "-e", code],
          stderr_to_stdout: true,
          env: [{"ERL_FLAGS", nil}]
        )

      output
    end

    test "every call says where it was looked for, why it did not load and what to do", %{ebin: ebin} do
      output = elixir(ebin, "DurableHandoff.Native.reasons()")
      assert output =~ "(DurableHandoff.NativeError) the Rust engine of durable_handoff is not loaded."
      assert output =~ Path.join([Path.dirname(ebin), "priv", "native", "handoff_nif"])
      assert output =~ "load_failed"
      assert output =~ "DURABLE_HANDOFF_NIF"
    end

    test "a supervisor with handoff does not start, one without does not care", %{ebin: ebin} do
      fake_host = """
      defmodule DurableServer.LifecycleManager do end
      defmodule DurableServer.Supervisor do
        def child_spec(opts), do: %{id: opts[:name], start: {Agent, :start_link, [fn -> 1 end]}}
      end
      """

      assert elixir(ebin, fake_host <> "DurableHandoff.Supervisor.start_link(name: S, handoff_on_shutdown: true)") =~
               "the Rust engine of durable_handoff is not loaded"

      assert elixir(ebin, fake_host <> "IO.inspect DurableHandoff.Supervisor.start_link(name: S)") =~ "{:ok, #PID<"
    end
  end

  test "a library that cannot be replaced in a running VM says so" do
    message = Exception.message(%NativeError{path: "p", reason: {:upgrade, ~c"Upgrade not supported"}})
    assert message =~ "restart the VM"
  end
end
