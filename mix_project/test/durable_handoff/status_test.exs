defmodule DurableHandoff.StatusTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.{Options, Status}

  test "a rebalance that the Drainer no longer waits for continues: its progress is not shown as that of the next one" do
    table = Status.new(__MODULE__, Options.new!([]))
    [let_go, next] = for _ <- 1..2, do: spawn(fn -> :ok end)
    progress = fn -> Status.read(__MODULE__).rebalance.progress end

    Status.put_rebalancing(table, let_go)
    Status.put_rebalance_progress(table, let_go, %{moved: 1})
    assert %{state: :running, progress: %{moved: 1}} = Status.read(__MODULE__).rebalance

    Status.put_rebalanced(table, {:error, :overdue})
    Status.put_rebalance_progress(table, let_go, %{moved: 2})
    assert %{state: :failed, progress: nil} = Status.read(__MODULE__).rebalance

    Status.put_rebalancing(table, next)
    Status.put_rebalance_progress(table, let_go, %{moved: 3})
    assert progress.() == nil
    Status.put_rebalance_progress(table, next, %{moved: 0})
    assert progress.() == %{moved: 0}
    Status.put_rebalanced(table, {:ok, %{ended: nil}})
    assert %{state: :ended, progress: %{moved: 0}} = Status.read(__MODULE__).rebalance
  end

  test "a drain that the Drainer no longer waits for continues: its progress is not shown as that of the next one" do
    table = Status.new(:another, Options.new!([]))
    [let_go, next] = for _ <- 1..2, do: spawn(fn -> :ok end)
    progress = fn -> Status.read(:another).progress end

    # The Drainer that started it has crashed.
    Status.put_progress(table, let_go, %{moved: 1})
    assert progress.() == nil
    Status.put_draining(table, next)
    Status.put_progress(table, let_go, %{moved: 2})
    assert progress.() == nil
    Status.put_progress(table, next, %{moved: 0})
    assert progress.() == %{moved: 0}
    Status.put_result(table, {:ok, %{ended: :done, total: 1}})
    assert %{state: :drained, progress: %{moved: 0}} = Status.read(:another)
  end
end
