defmodule DurableHandoff.Host.Probe do
  @moduledoc false
  # One probe of a supervisor's store for all callers that need it at the same time.
  #
  # All attempts of a first wave may have to know at once whether the store takes writes. Each probe writes the
  # same object, one after the other, and some stores allow one write a second for each object.
  #
  # Guarantees:
  #
  #   * At most one probe of a supervisor runs at a time. A caller that comes meanwhile gets its answer.
  #   * A probe runs until it has an answer, even if no caller waits for it any longer. So callers that give up
  #     leave no requests behind.
  #   * No caller waits longer than its own time.

  alias DurableHandoff.{Clock, Host}

  @doc """
  The answer of the probe that runs now for the supervisor `name`, else of `probe`, which is started in a
  process of its own. False if the probe fails.
  """
  @spec run(Host.name(), (() -> boolean()), timeout_ms :: non_neg_integer()) :: boolean() | :timeout
  def run(name, probe, timeout_ms), do: await(:"#{name}_handoff_probe", probe, Clock.after_ms(timeout_ms))

  defp await(process, probe, until_us) do
    monitor = Process.monitor(Process.whereis(process) || :proc_lib.spawn(fn -> answer(process, probe) end))

    receive do
      {:DOWN, ^monitor, :process, _pid, {:shutdown, {__MODULE__, answer}}} -> answer
      # It has ended since, or another caller's probe has started.
      {:DOWN, ^monitor, :process, _pid, again} when again in [:noproc, :normal] -> await(process, probe, until_us)
      {:DOWN, ^monitor, :process, _pid, _failed} -> false
    after
      Clock.until_ms(until_us) ->
        Process.demonitor(monitor, [:flush])
        :timeout
    end
  end

  defp answer(process, probe) do
    if register(process), do: exit({:shutdown, {__MODULE__, probe.()}})
  end

  defp register(process) do
    Process.register(self(), process)
  rescue
    ArgumentError -> false
  end
end
