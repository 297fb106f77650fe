defmodule DurableHandoff.Host.UnknownAnswerTest do
  use ExUnit.Case, async: true

  import ExUnit.CaptureLog

  alias DurableHandoff.Host.UnknownAnswer

  test "a drain of many servers logs an answer once, whatever facts it holds" do
    log =
      capture_log(fn ->
        assert UnknownAnswer.note(:once, {:error, {:of_a_later_version, %{pid: self()}}}) == :logged

        for n <- 1..100 do
          assert UnknownAnswer.note(:once, {:error, {:of_a_later_version, %{n: n}}}) == :known
        end
      end)

    assert log =~ "of_a_later_version"
  end

  test "another answer, and another function, are logged too" do
    capture_log(fn ->
      assert UnknownAnswer.note(:another, {:error, :one}) == :logged
      assert UnknownAnswer.note(:another, {:error, :two}) == :logged
      assert UnknownAnswer.note(:another, {:ok, "text"}) == :logged
      assert UnknownAnswer.note(:another, {:ok, "other text"}) == :known
      assert UnknownAnswer.note(:a_third, {:error, :one}) == :logged
    end)
  end
end
