defmodule DurableHandoff.Executor.EmbeddedTest do
  use ExUnit.Case

  import DurableHandoff.Eventually

  alias DurableHandoff.{EngineTerms, Native}
  alias DurableHandoff.Executor.Embedded

  setup do
    for function <- [:engine_follow, :engine_follow_dirty],
        do: :erlang.trace_pattern({Native, function, 3}, true, [:local])

    on_exit(fn -> :erlang.trace_pattern({Native, :_, :_}, false, [:local]) end)
  end

  test "a large drain that another engine ends is ended on a dirty scheduler" do
    assert followed(5_001, :finish) == :engine_follow_dirty
    assert followed(5_000, :finish) == :engine_follow
    assert followed(5_001, {:start, 0, "a@h", 1, 1_000}) == :engine_follow
  end

  # The function of the NIF that a drain of `count` servers calls for this action.
  defp followed(count, action) do
    follow = fn ->
      receive(do: (:traced -> :ok))
      view = EngineTerms.view(["a@h"])
      {:ok, engine} = Embedded.start(EngineTerms.config(%{}), List.duplicate({0, 0, 0}, count), view, 0)
      {:ok, _action} = Embedded.follow(engine, 0, action)
    end

    task = Task.async(follow)
    :erlang.trace(task.pid, true, [:call])
    send(task.pid, :traced)
    await_task(task)
    pid = task.pid
    assert_receive {:trace, ^pid, :call, {Native, function, [_engine, 0, ^action]}}
    function
  end
end
