defmodule DurableHandoff.Apart do
  @moduledoc false
  # Work that is kept apart, so that neither its end nor that of its caller ends the other.

  @doc """
  The specification of `child` with a temporary supervisor of its own; `id` is for the supervisor above that. The child
  is restarted when it crashes. When it crashes repeatedly it stays down, and no other process ends with it.
  """
  @spec child(id :: term(), :supervisor.child_spec() | {module(), term()} | module()) :: Supervisor.child_spec()
  def child(id, child) do
    %{
      id: id,
      start: {Supervisor, :start_link, [[child], [strategy: :one_for_one]]},
      type: :supervisor,
      restart: :temporary
    }
  end

  @doc "Waits for the result of `work` in a process of its own. The process goes on when the caller ends."
  @spec run((() -> result)) :: {:ok, result} | {:died, reason :: term()} when result: term()
  def run(work) do
    {_pid, monitor} = spawn_monitor(fn -> exit({:shutdown, {__MODULE__, work.()}}) end)

    receive do
      {:DOWN, ^monitor, :process, _pid, {:shutdown, {__MODULE__, result}}} -> {:ok, result}
      {:DOWN, ^monitor, :process, _pid, reason} -> {:died, reason}
    end
  end
end
