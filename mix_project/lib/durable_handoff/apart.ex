defmodule DurableHandoff.Apart do
  @moduledoc false
  # A child with a temporary supervisor of its own. It is restarted when it crashes. When it crashes repeatedly it
  # stays down, and no other process ends with it.

  @doc "The specification of `child` with its own supervisor; `id` is for the supervisor above that."
  @spec child(id :: term(), :supervisor.child_spec() | {module(), term()} | module()) :: Supervisor.child_spec()
  def child(id, child) do
    %{
      id: id,
      start: {Supervisor, :start_link, [[child], [strategy: :one_for_one]]},
      type: :supervisor,
      restart: :temporary
    }
  end
end
