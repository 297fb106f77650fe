defmodule DurableServer.SingleFlight do
  @moduledoc """
  Runs a function once at a time per key on this node, in the process of the first caller. Callers that come
  meanwhile wait and get the same result. If the first caller dies or raises, one of them runs the function.

  The number of waiting callers is bounded: one more is refused with `{:error, :singleflight_overloaded}` at
  once.
  """

  @max_waiting 100

  @doc "`registry` is a unique registry, `:\"REGISTRY_waiting\"` a duplicate one beside it."
  @spec run(atom(), term(), (() -> result)) :: result | {:error, :singleflight_overloaded} when result: term()
  def run(registry, key, fun) do
    case Registry.register(registry, key, nil) do
      {:ok, _owner} -> lead(registry, key, fun)
      {:error, {:already_registered, leader}} -> follow(registry, key, fun, leader)
    end
  end

  @spec waiting(atom()) :: atom()
  def waiting(registry), do: :"#{registry}_waiting"

  defp lead(registry, key, fun) do
    try do
      fun.()
    else
      result -> land(registry, key, {:landed, result})
    catch
      kind, reason ->
        land(registry, key, :crashed)
        :erlang.raise(kind, reason, __STACKTRACE__)
    end
  end

  defp land(registry, key, outcome) do
    Registry.unregister(registry, key)

    Registry.dispatch(waiting(registry), key, fn waiters -> for {pid, ref} <- waiters, do: send(pid, {ref, outcome}) end)

    with {:landed, result} <- outcome, do: result
  end

  defp follow(registry, key, fun, leader) do
    if length(Registry.lookup(waiting(registry), key)) >= @max_waiting do
      {:error, :singleflight_overloaded}
    else
      ref = Process.monitor(leader)
      {:ok, _owner} = Registry.register(waiting(registry), key, ref)
      outcome = wait(registry, key, leader, ref)
      Registry.unregister(waiting(registry), key)
      Process.demonitor(ref, [:flush])

      case outcome do
        {:landed, result} -> result
        _next -> run(registry, key, fun)
      end
    end
  end

  # The leader notifies all waiting callers when it ends. One that ended before this caller was listed does not.
  defp wait(registry, key, leader, ref) do
    timeout = if match?([{^leader, _}], Registry.lookup(registry, key)), do: :infinity, else: 0

    receive do
      {^ref, outcome} -> outcome
      {:DOWN, ^ref, :process, _pid, _reason} -> :crashed
    after
      timeout -> :missed
    end
  end
end
