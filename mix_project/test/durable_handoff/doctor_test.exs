defmodule DurableHandoff.DoctorTest do
  use ExUnit.Case

  alias DurableHandoff.Doctor

  test "without DurableServer the result names it and the checks that did not run" do
    findings = Doctor.run()
    refute Doctor.healthy?(findings)
    assert [%{state: :problem, text: text}] = for(%{check: :durable_server} = finding <- findings, do: finding)
    assert text =~ "mix deps.get"
    assert [%{state: :note, todo: todo}] = for(%{check: :supervisors} = finding <- findings, do: finding)
    assert todo =~ "--node"
    assert [%{state: :ok} | _store] = for(%{check: :library} = finding <- findings, do: finding)
  end

  test "mix durable_handoff.doctor prints the same and fails" do
    previous_shell = Mix.shell()
    Mix.shell(Mix.Shell.Process)
    on_exit(fn -> Mix.shell(previous_shell) end)
    assert catch_exit(Mix.Tasks.DurableHandoff.Doctor.run([])) == {:shutdown, 1}
    text = Doctor.format(Doctor.run())
    assert_received {:mix_shell, :info, [^text]}
  end

  test "a name without its option is refused with the option that is meant" do
    for {argument, meant} <- [{"app@host", "--node app@host"}, {"MyApp.Durable", "--supervisor MyApp.Durable"}] do
      assert_raise Mix.Error, ~r/did you mean #{meant}\?/, fn -> Mix.Tasks.DurableHandoff.Doctor.run([argument]) end
    end
  end

  test "checks that crash are a problem of that supervisor, and the caller goes on" do
    # The table of a supervisor with handoff, which only its Drainer writes.
    name = :doctor_crashes
    status = :ets.new(:"#{name}_handoff_status", [:named_table])
    row = [options: nil, state: :idle, marked: false, progress: nil, report: nil, waiting: 0]
    :ets.insert(status, row ++ [rebalance: %{}, rebalance_progress: nil, rebalance_waiting: 0])
    Process.register(spawn_link(fn -> Process.sleep(:infinity) end), :"#{name}_lifecycle_manager")

    assert [%{state: :problem, supervisor: ^name, text: text}] =
             for(%{check: :supervisors} = finding <- Doctor.run(supervisors: name), do: finding)

    assert text =~ "ended with error"
  end

  test "the remedy is printed below the problem, with further lines indented" do
    finding = %{check: :store, supervisor: My.Sup, state: :problem, text: "first\n  second\n", todo: "do this"}

    assert Doctor.format([finding, %{finding | state: :ok, text: "fine", todo: nil}]) ==
             """
             problem  store           My.Sup: first
                                      second
                                      -> do this
             ok       store           My.Sup: fine\
             """
  end
end
