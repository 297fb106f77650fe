defmodule FakeRustNode do
  @moduledoc """
  Simulates the process of a Rust node. It registers the name of the protocol and forwards every message to
  the test as `{:played, message}`. The test itself sends the Rust node's messages, because the protocol does
  not check senders. This process sends the keepalives to its drains, unless `silent: true`, because the test
  may pause for longer than a Rust node may be silent. It ends with the test.
  """

  @alive_every_ms 500

  @doc "Starts it on this node for `test`, and replaces an earlier one."
  @spec start(pid(), silent: boolean()) :: pid()
  def start(test, opts \\ []) do
    with old when is_pid(old) <- Process.whereis(:durable_handoff), do: stop(old)
    caller = self()

    pid =
      spawn(fn ->
        Process.register(self(), :durable_handoff)
        Process.monitor(test)
        send(caller, {:registered, self()})
        unless opts[:silent], do: send(self(), :alive)
        play(test, %{})
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

  defp play(test, drains) do
    receive do
      :alive ->
        for {id, drain} <- drains, do: send(drain, {:durable_handoff, 1, :progress, id, %{}})
        Process.send_after(self(), :alive, @alive_every_ms)
        play(test, drains)

      {:DOWN, _monitor, :process, ^test, _reason} ->
        :ok

      message ->
        send(test, {:played, message})
        play(test, track(message, drains))
    end
  end

  defp track({:durable_handoff, 1, :drain_open, id, drain, _spec}, drains), do: Map.put(drains, id, drain)
  defp track({:durable_handoff, 1, :drain_close, id}, drains), do: Map.delete(drains, id)
  defp track(_message, drains), do: drains
end
