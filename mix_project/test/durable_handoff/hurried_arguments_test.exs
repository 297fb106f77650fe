defmodule DurableHandoff.HurriedArgumentsTest do
  @moduledoc "Common mistakes: each wrong argument raises an error that names it and what is expected."
  use ExUnit.Case, async: true

  alias DurableHandoff.{Client, Doctor, Drainer, Options, Store}

  @no_names [nil, true, "My.Sup", [], %{}, 1, {:via, Registry, :x}]

  for {function, more} <-
        [drain: [], plan: [], status: [], cancel: [], cordon: [], uncordon: [], rebalance: []] ++
          [move: ["k"], call: ["k", :add], cast: ["k", :add], await: ["k"], whereis: ["k"]] do
    test "#{function} of a term that is not a supervisor's name" do
      for {wrong, hint} <- [{self(), "; for the pid of a server use GenServer"} | Enum.map(@no_names, &{&1, ""})] do
        error = assert_raise ArgumentError, fn -> apply(DurableHandoff, unquote(function), [wrong | unquote(more)]) end
        assert error.message =~ ~r/^DurableHandoff.*: the first argument got /
        expected = "expected the name of a DurableServer.Supervisor such as MyApp.Durable"
        assert error.message =~ "got #{inspect(wrong)}, " <> expected <> hint
      end
    end
  end

  test "a name that is too long for a supervisor is an error of its own" do
    name = String.to_atom(String.duplicate("a", 255))

    for ask <- [&DurableHandoff.status/1, &DurableHandoff.whereis(&1, "k"), &Doctor.run(supervisors: &1)] do
      assert_raise ArgumentError, ~r/more than 200 characters/, fn -> ask.(name) end
    end
  end

  test "the name of a supervisor on another node says how to ask there" do
    assert_raise ArgumentError, ~r/on another node ask by :erpc.call\(:b@h, \.\.\.\)/, fn ->
      DurableHandoff.drain({My.Sup, :b@h})
    end
  end

  test "an invalid key raises instead of waiting for an owner" do
    for wrong <- [nil, :room, 1, {"room", 1}],
        {name, call} <- [
          call: &DurableHandoff.call(My.Sup, &1, :hello, timeout: :infinity),
          cast: &DurableHandoff.cast(My.Sup, &1, :hello, timeout: :infinity),
          await: &DurableHandoff.await(My.Sup, &1, timeout: :infinity),
          whereis: &DurableHandoff.whereis(My.Sup, &1),
          move: &DurableHandoff.move(My.Sup, &1)
        ] do
      error = assert_raise ArgumentError, fn -> call.(wrong) end
      assert error.message =~ "DurableHandoff.#{name}: the second argument got #{inspect(wrong)}, expected the key"
    end

    assert_raise ArgumentError, ~r/for the pid of a server use GenServer/, fn ->
      DurableHandoff.call(My.Sup, self(), :hello)
    end
  end

  test "options that are not a keyword list: the error suggests the right form" do
    for {wrong, meant} <- [
          {5000, "did you mean [timeout_ms: 5000]?"},
          {%{max_attempts: 2}, "did you mean [max_attempts: 2]?"},
          {:on, "such as [timeout_ms: 30000]"},
          {0, "such as [timeout_ms: 30000]"},
          {%{"timeout_ms" => 5}, "such as [timeout_ms: 30000]"},
          {%{}, "such as [timeout_ms: 30000]"},
          {"true", "such as [timeout_ms: 30000]"},
          {[:enabled], "such as [timeout_ms: 30000]"},
          {[{"timeout_ms", 1}], "such as [timeout_ms: 30000]"}
        ] do
      error = assert_raise ArgumentError, fn -> Options.new!(wrong) end

      assert error.message ==
               "invalid handoff_on_shutdown: got #{inspect(wrong)}, expected a keyword list" <> separated(meant)
    end
  end

  defp separated("did" <> _rest = text), do: ", " <> text
  defp separated(text), do: " " <> text

  test "a move's target without to:" do
    for wrong <- [:b@h, "b@h"] do
      assert_raise ArgumentError, ~r/did you mean \[to: #{inspect(wrong)}\]\?/, fn ->
        DurableHandoff.move(My.Sup, "room/1", wrong)
      end
    end

    assert_raise ArgumentError, ~r/such as \[to: :"app@10.0.0.7"\]/, fn ->
      DurableHandoff.move(My.Sup, "room/1", nil)
    end
  end

  test "dry_run: true for a drain: the error names plan/2" do
    assert_raise ArgumentError, ~r/use DurableHandoff.plan\/2/, fn -> DurableHandoff.drain(My.Sup, dry_run: true) end
  end

  test "a misspelt option of the function itself" do
    for {misspelt, meant} <- [awiat: :await, forced: :force] do
      assert_raise ArgumentError, ~r/unknown option :#{misspelt}, did you mean :#{meant}\?/, fn ->
        Options.override!(Options.new!(true), [{misspelt, true}], [:await, :force])
      end
    end

    assert_raise ArgumentError, ~r/unknown option :dry_rum, did you mean :dry_run\?/, fn ->
      Options.rebalance(Options.new!(true), [dry_rum: true], [:dry_run, :await])
    end
  end

  test "child specifications of a term that is not a keyword list" do
    for module <- [DurableHandoff.Supervisor, Drainer, Client], wrong <- [nil, My.Sup, "My.Sup", [My.Sup], %{}] do
      error = assert_raise ArgumentError, fn -> module.child_spec(wrong) end
      assert error.message =~ "#{inspect(module)} got #{inspect(wrong)}, expected"
    end
  end

  test "keys and etags that a store cannot use" do
    {:ok, %{state: store}} = Store.init_backend(url: "memory:#{inspect(make_ref())}")

    for {call, text} <- [
          {fn -> Store.get_object(store, :k) end, "a key or prefix got :k, expected a string"},
          {fn -> Store.put_object(store, nil, %{}) end, "a key or prefix got nil, expected a string"},
          {fn -> Store.try_claim(store, 1, %{}) end, "a key or prefix got 1, expected a string"},
          {fn -> Store.delete_object(store, nil) end, "a key or prefix got nil, expected a string"},
          {fn -> store |> Store.list_all_objects_stream(:k) |> Enum.to_list() end, "a key or prefix got :k"},
          {fn -> Store.put_object(store, "k", %{}, etag: 1) end, ":etag got 1, expected a string"},
          {fn -> Store.delete_object(store, "k", etag: :any) end, ":etag got :any, expected a string"},
          {fn -> Store.put_object(store, "k", %{}, etag: <<255>>) end, ":etag got <<255>>, expected a string"}
        ] do
      error = assert_raise ArgumentError, call
      assert error.message =~ text
    end
  end

  test "supervisors for the doctor" do
    for wrong <- [My.Sup, "My.Sup", [supervisor: My.Sup], 1] do
      assert_raise ArgumentError, ~r/DurableHandoff.Doctor got .*, expected \[supervisors: /, fn ->
        Doctor.run(wrong)
      end
    end

    assert_raise ArgumentError, ~r/:supervisors got "My.Sup"/, fn -> Doctor.run(supervisors: ["My.Sup"]) end
    assert [_ | _] = Doctor.run(supervisors: My.Sup)
  end
end
