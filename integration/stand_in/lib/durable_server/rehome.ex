defmodule DurableServer.Rehome do
  @moduledoc """
  Moves one server to another node: stop it with a reservation for this node, read what it left, start it there.

  Runs in the caller, once at a time per key and module on this node. On success it costs one read and three conditional
  writes, one after the other. From the moment the server has stopped until it runs again, or until the reservation is
  cleared or runs out, nobody else starts it; calling again from this node goes on where the last call failed.
  """

  alias DurableServer.{Config, LifecycleManager, Meta, Object, Remote, Server, SingleFlight, Starter}

  @least_reservation_ms 30_000
  @reservation_margin_ms 10_000
  @targets_tried 3

  @spec run(atom(), Starter.child(), keyword()) :: Server.result()
  def run(supervisor, {module, child_opts} = child, opts) do
    config = Config.fetch!(supervisor)
    SingleFlight.run(config.flight_registry, {child_opts[:key], module}, fn -> move(config, child, opts) end)
  end

  defp move(config, {_module, child_opts} = child, opts) do
    key = child_opts[:key]

    with :ok <- stop(config, key, opts[:shutdown_timeout] || config.graceful_shutdown_timeout_ms),
         {:ok, stored} <- Object.read(config.storage_backend, Config.storage_key(config, key)),
         :ok <- reserved_for_us(stored.meta) do
      start(config, child, stored, opts[:target_node])
    end
  end

  defp stop(config, key, timeout) do
    case DurableServer.Supervisor.lookup(config.name, key) do
      {pid, _meta} -> stop_process(config, pid, timeout)
      nil -> :ok
    end
  end

  defp stop_process(config, pid, timeout) do
    deadline = System.monotonic_time(:millisecond) + timeout
    ttl = max(@least_reservation_ms, config.restart_start_timeout_ms + @reservation_margin_ms)
    ref = Process.monitor(pid)

    try do
      :ok = GenServer.call(pid, {:durable, {:stop_for_rehome, Atom.to_string(node()), ttl, :shutdown}}, timeout)
    catch
      :exit, reason ->
        Process.demonitor(ref, [:flush])
        {:error, {:shutdown_call_failed, reason}}
    else
      :ok ->
        receive do
          {:DOWN, ^ref, :process, _pid, _reason} -> :ok
        after
          max(deadline - System.monotonic_time(:millisecond), 0) ->
            Process.demonitor(ref, [:flush])
            {:error, :shutdown_timeout}
        end
    end
  end

  defp reserved_for_us(meta) do
    if Meta.reserved_for(meta, System.system_time(:millisecond)) == Atom.to_string(node()),
      do: :ok,
      else: {:error, {:rehome_reservation_lost, Map.take(meta, [:status, :node_str, :restart_attempt_node])}}
  end

  defp start(config, child, stored, nil) do
    {module, _child_opts} = child
    opts = [limit: @targets_tried, sticky_placement: stored.meta.sticky_placement]

    case LifecycleManager.find_eligible_nodes(config.name, module, opts) do
      [] -> start(config, child, stored, node())
      targets -> start_on_first(config, child, stored, targets)
    end
  end

  defp start(config, child, stored, target) when target == node(),
    do: started!(Starter.start(config.name, child, start_opts(stored)), child, target)

  defp start(config, child, stored, target),
    do: started!(Remote.start(config, target, child, start_opts(stored)), child, target)

  defp start_on_first(config, child, stored, [target | others]) do
    case start(config, child, stored, target) do
      {:error, reason} when others != [] and not is_tuple(reason) ->
        start_on_first(config, child, stored, others)

      {:error, {kind, _}} when others != [] and kind != :already_started ->
        start_on_first(config, child, stored, others)

      result ->
        result
    end
  end

  defp start_opts(stored), do: [preloaded: stored, reservation: Atom.to_string(node())]

  # The real one has no clause for that.
  defp started!(:ignore, _child, _target), do: :erlang.error({:case_clause, :ignore})
  defp started!(result, _child, _target), do: result
end
