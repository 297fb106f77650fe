defmodule DurableHandoff.Host.UnknownAnswerTest do
  use ExUnit.Case, async: true

  import DurableHandoff.LogEvents

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

  test "another answer, or one of another function, is logged, too" do
    assert UnknownAnswer.note(:another, {:error, :one}) == :logged
    assert UnknownAnswer.note(:another, {:error, :two}) == :logged
    assert UnknownAnswer.note(:another, {:ok, "text"}) == :logged
    assert UnknownAnswer.note(:another, {:ok, "other text"}) == :known
    assert UnknownAnswer.note(:a_third, {:error, :one}) == :logged
  end
end
