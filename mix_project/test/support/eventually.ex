defmodule DurableHandoff.Eventually do
  @moduledoc "Waits for a condition that sends no message, with a bound."

  import ExUnit.Assertions, only: [flunk: 1]

  @task_ms 60_000

  @doc "The result of a task."
  @spec await_task(Task.t()) :: term()
  def await_task(task), do: Task.await(task, @task_ms)

  @doc "The results of several tasks, in order."
  @spec await_tasks([Task.t()]) :: [term()]
  def await_tasks(tasks), do: Task.await_many(tasks, @task_ms)

  @doc "Waits until a name is free, because the process of the previous test may not have ended yet."
  @spec await_name(atom()) :: :ok
  def await_name(name), do: wait_until(fn -> Process.whereis(name) == nil end)

  @doc """
  Returns when `condition` is true. Polls every ten milliseconds, and fails the test after the given number of
  polls.
  """
  @spec wait_until((() -> boolean()), non_neg_integer()) :: :ok
  def wait_until(condition, looks \\ 6_000) do
    cond do
      condition.() -> :ok
      looks == 0 -> flunk("condition not met")
      true -> Process.sleep(10) && wait_until(condition, looks - 1)
    end
  end
end
