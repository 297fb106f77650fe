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
