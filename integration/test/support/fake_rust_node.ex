defmodule FakeRustNode do
  @moduledoc """
  The process of a Rust node, played by a test: it has the name that the protocol says, and hands every message to the test as
  `{:played, message}`. What it says, the test says: the protocol looks at what is in a message, not at who sent it.
  """

  @doc "Starts it on this node for `test`, in place of an earlier one."
  @spec start(pid()) :: pid()
  def start(test) do
    with old when is_pid(old) <- Process.whereis(:durable_handoff), do: stop(old)
    caller = self()

    pid =
      spawn(fn ->
        Process.register(self(), :durable_handoff)
        send(caller, {:registered, self()})
        play(test)
      end)

    receive do
      {:registered, ^pid} -> pid
    end
  end

  defp stop(pid) do
    monitor = Process.monitor(pid)
    Process.exit(pid, :kill)

    receive do
      {:DOWN, ^monitor, :process, _pid, _reason} -> :ok
    end
  end

  defp play(test) do
    receive do
      message -> send(test, {:played, message})
    end

    play(test)
  end
end
