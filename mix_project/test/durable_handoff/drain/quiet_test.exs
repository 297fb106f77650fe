defmodule DurableHandoff.Drain.QuietTest do
  use ExUnit.Case, async: false

  import DurableHandoff.Eventually
  import ExUnit.CaptureLog

  alias DurableHandoff.Drain.Quiet
  alias DurableHandoff.Host.UnknownAnswer
  alias DurableHandoff.LogEvents

  @moduletag :capture_log

  require Logger

  test "a process that runs a move logs nothing during a drain, and logs again afterwards" do
    holder = start_holder()
    refute capture_log(fn -> Quiet.run(fn -> Logger.error("inside") end) end) =~ "inside"
    assert capture_log(fn -> Logger.error("after") end) =~ "after"

    assert_raise RuntimeError, fn -> Quiet.run(fn -> raise "told to raise" end) end
    assert capture_log(fn -> Logger.error("after a failure") end) =~ "after a failure"

    send(holder, :end)
    wait_until(fn -> not :ets.member(Quiet, :held) end)
    assert capture_log(fn -> Quiet.run(fn -> Logger.error("inside") end) end) =~ "inside"
  end

  test "a process that runs a move still logs an unknown answer" do
    holder = start_holder()

    {result, lines} =
      LogEvents.collect(
        fn -> Quiet.run(fn -> UnknownAnswer.note(:while_quiet, {:error, :of_a_later_version}) end) end,
        &match?(%{durable_handoff: :unknown_answer, function: :while_quiet}, &1)
      )

    assert result == :logged
    assert [{:warning, :unknown_answer, %{answer: {:error, :of_a_later_version}}}] = lines

    send(holder, :end)
    wait_until(fn -> not :ets.member(Quiet, :held) end)
  end

  # Acts as a drain until it gets `:end`.
  defp start_holder do
    holder = spawn_link(fn -> Quiet.hold() && receive do: (:end -> :ok) end)
    wait_until(fn -> :ets.member(Quiet, :held) end)
    holder
  end
end
