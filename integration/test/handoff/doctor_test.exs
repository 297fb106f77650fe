defmodule Handoff.DoctorTest do
  @moduledoc "`DurableHandoff.Doctor` on real nodes: it finds what is wrong, and nothing else."

  use HandoffCase, nodes: 2

  alias Mix.Tasks.DurableHandoff.Doctor, as: Task

  setup context do
    start_cluster(context, heartbeat_interval_ms: 50)
    :ok
  end

  test "a healthy node: every check runs, and none finds a problem", %{b: b} = context do
    findings = findings(context)
    assert for(%{state: :problem} = finding <- findings, do: finding) == []

    checks = findings |> Enum.map(& &1.check) |> Enum.uniq() |> Enum.sort()
    assert checks == [:application, :budget, :cluster, :durable_server, :library, :machine, :mark, :options, :store]
    assert Enum.any?(findings, &(&1.check == :cluster and &1.text =~ Atom.to_string(b)))
    assert state(findings, :store) == [:ok]
    # Without shutdown_budget_ms it says how long a shutdown may take.
    assert state(findings, :budget) == [:warning]
  end

  test "a healthy node that is not connected is named, with the settings to compare", %{a: a, b: b} = context do
    disconnect(a, b)
    wait_until(fn -> :problem in state(findings(context), :cluster) end)
    problems = for %{check: :cluster, state: :problem} = finding <- findings(context), do: finding
    assert Enum.any?(problems, &(&1.text =~ Atom.to_string(b) and &1.todo =~ "cookie"))
  end

  test "a store that does not respond to writes is a problem, and the check still ends", %{store: store} = context do
    SimulatedStore.configure(store, outage: :writes)
    assert state(findings(context), :store) == [:problem]
  end

  test "another node with another store is named, also by a drain", %{a: a, b: b} = context do
    context = another_supervisor(context)

    for node <- [a, b] do
      backend = {DurableHandoff.Store, Store.Places.directory() ++ [heartbeat_interval_ms: 100]}
      start_handoff(context, node, backend: backend)
    end

    await_heartbeats([a, b], context.sup)
    warnings = for %{check: :cluster, state: :warning, text: text} <- findings(context), do: text
    assert Enum.any?(warnings, &(&1 =~ "another store" and &1 =~ Atom.to_string(b)))

    listen_to_log(context, a)
    start_servers(context, a, 1)
    assert {:ok, %{total: 1}} = drain(context, a)
    assert {:warning, %{nodes: [name]}} = await_log(a, :another_store)
    assert name == Atom.to_string(b)
  end

  test "a node whose supervisor of this name has another prefix is named", %{a: a, b: b} = context do
    context = another_supervisor(context)
    start_handoff(context, a)
    start_handoff(context, b, prefix: "other/")
    await_heartbeats([a, b], context.sup)
    problems = for %{check: :cluster, state: :problem, text: text} <- findings(context), do: text
    assert Enum.any?(problems, &(&1 =~ "no supervisor of this name" and &1 =~ Atom.to_string(b)))
  end

  test "a shutdown budget that is too small is a problem", %{a: a} = context do
    context = another_supervisor(context)
    start_handoff(context, a, handoff_on_shutdown: [timeout_ms: 30_000, shutdown_budget_ms: 5_000])
    findings = findings(context)
    assert state(findings, :budget) == [:problem]
    assert [%{text: text}] = for(%{check: :options} = finding <- findings, do: finding)
    assert text =~ "shutdown_budget_ms: 5000"
    refute text =~ "timeout_ms: 30000"
  end

  test "a node that accepts no servers is named", %{a: a} = context do
    :ok = call(a, DurableHandoff, :cordon, [context.sup])
    assert state(findings(context), :mark) == [:warning]
    :ok = call(a, DurableHandoff, :uncordon, [context.sup])
    assert state(findings(context), :mark) == [:ok]
  end

  test "a name without a supervisor, and one without handoff, are named", %{a: a} = context do
    assert [:problem] = state(call(a, DurableHandoff.Doctor, :run, [[supervisors: [:nowhere]]]), :supervisors)
    context = another_supervisor(context)
    start_handoff(context, a, handoff_on_shutdown: false)
    assert [:problem] = state(findings(context), :options)
  end

  describe "mix durable_handoff.doctor --node" do
    setup do
      previous_shell = Mix.shell()
      Mix.shell(Mix.Shell.Process)
      on_exit(fn -> Mix.shell(previous_shell) end)
    end

    test "runs the checks on that node, prints the results, and fails only for a problem",
         %{a: a, store: store} = context do
      arguments = ["--node", Atom.to_string(a), "--supervisor", inspect(context.sup)]
      Task.run(arguments)
      assert_received {:mix_shell, :info, [text]}
      assert text =~ "#{inspect(context.sup)}: it answers, and refuses"

      SimulatedStore.configure(store, outage: :writes)
      assert catch_exit(Task.run(arguments)) == {:shutdown, 1}
      assert_received {:mix_shell, :info, [text]}
      assert text =~ "problem  store"

      assert catch_exit(Task.run(["--node", Atom.to_string(a), "--supervisor", "MyApp.Nowhere"])) == {:shutdown, 1}
      assert_received {:mix_shell, :info, [text]}
      assert text =~ "MyApp.Nowhere: no DurableServer.Supervisor of this name"
    end

    test "an unreachable node or an invalid name is an error that says what to check" do
      assert_raise Mix.Error, ~r/cannot be reached.*cookie.*-proto_dist/s, fn ->
        Task.run(["--node", "nowhere@127.0.0.1"])
      end

      assert_raise Mix.Error, ~r/takes a name such as/, fn -> Task.run(["--node", "nowhere"]) end
    end
  end

  defp findings(context), do: call(hd(context.nodes), DurableHandoff.Doctor, :run, [[supervisors: [context.sup]]])

  defp state(findings, check),
    do: for(%{check: ^check, state: state} <- findings, state != :ok or check != :cluster, do: state)
end
