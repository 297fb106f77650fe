defmodule HeldChild do
  @moduledoc """
  A child of a supervision tree that stops only when the test allows it, like a web server that waits for its
  connections.

  The test gets `{:stopping, node, pid}` when it is to stop, and sends it `:go_on`.
  """

  use GenServer

  @doc "The specification of a child that may take `shutdown_ms` to stop."
  @spec child_spec({pid(), pos_integer()}) :: Supervisor.child_spec()
  def child_spec({test, shutdown_ms}),
    do: %{id: __MODULE__, start: {GenServer, :start_link, [__MODULE__, test]}, shutdown: shutdown_ms}

  @impl true
  def init(test) do
    Process.flag(:trap_exit, true)
    {:ok, test}
  end

  @impl true
  def terminate(_reason, test) do
    send(test, {:stopping, node(), self()})

    receive do
      :go_on -> :ok
    end
  end
end
