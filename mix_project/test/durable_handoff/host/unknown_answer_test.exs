defmodule DurableHandoff.Host.UnknownAnswerTest do
  use ExUnit.Case, async: true

  import DurableHandoff.{Eventually, LogEvents}

  @moduletag :capture_log

  alias DurableHandoff.Host.UnknownAnswer

  test "a drain logs an unknown answer once, even if its details differ" do
    answer = {:error, {:of_a_later_version, %{pid: self()}}}

    {_result, lines} =
      collect(
        fn ->
          assert UnknownAnswer.note(:once, answer) == :logged

          for n <- 1..100 do
            assert UnknownAnswer.note(:once, {:error, {:of_a_later_version, %{n: n}}}) == :known
          end
        end,
        &(&1.durable_handoff == :unknown_answer and &1.function == :once)
      )

    assert [{:warning, :unknown_answer, %{answer: ^answer}}] = lines
  end

  test "processes that get an unknown answer at the same moment log it once" do
    locks = Process.whereis(:global_name_server)
    # Until it goes on, none of them knows of another one.
    :erlang.suspend_process(locks)
    notes = for _ <- 1..3, do: Task.async(fn -> UnknownAnswer.note(:at_once, {:error, :one}) end)
    for %{pid: pid} <- notes, do: wait_until(fn -> waits_for_lock?(pid) end)
    :erlang.resume_process(locks)
    assert notes |> await_tasks() |> Enum.sort() == [:known, :known, :logged]
  end

  defp waits_for_lock?(pid) do
    {:current_stacktrace, stack} = Process.info(pid, :current_stacktrace)
    Enum.any?(stack, &match?({:global, :trans, _arity, _location}, &1))
  end

  test "another answer, or one of another function, is logged, too" do
    assert UnknownAnswer.note(:another, {:error, :one}) == :logged
    assert UnknownAnswer.note(:another, {:error, :two}) == :logged
    assert UnknownAnswer.note(:another, {:ok, "text"}) == :logged
    assert UnknownAnswer.note(:another, {:ok, "other text"}) == :known
    assert UnknownAnswer.note(:a_third, {:error, :one}) == :logged
  end
end
