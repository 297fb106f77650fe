defmodule DurableServer.Rehome do
  @moduledoc """
  Moves one server to another node: stops it with a reservation for this node, reads its object, and starts it
  there.

  Runs in the caller, once at a time per key and module on this node. On success it costs one read and three
  conditional writes, one after the other. No other node starts the server from its stop until the target
  claims it, or until the reservation is cleared or expires. Another call from this node continues where the
  last one failed.

  If the final write failed, the read shows it and this raises. It also raises if `init` returns `:ignore`.
  """

  alias DurableServer.{Config, LifecycleManager, Meta, Object, Placement, Remote, Server, SingleFlight, Starter}

  @least_reservation_ms 30_000
  @reservation_margin_ms 10_000
  @shutdown_ms 15_000
  @targets_tried 3

  @spec run(atom(), Starter.child(), keyword()) :: Server.result()
  def run(supervisor, {module, child_opts} = child, opts) do
    config = Config.fetch!(supervisor)
    SingleFlight.run(config.flight_registry, {child_opts[:key], module}, fn -> move(config, child, opts) end)
  end

  defp move(config, {_module, child_opts} = child, opts) do
    key = child_opts[:key]

    with {:ok, ran?} <- stop(config, key, opts[:shutdown_timeout] || @shutdown_ms),
         {:ok, start_opts} <- left(config, key, ran?) do
      start(config, child, start_opts, opts[:target_node])
    end
  end

  defp stop(config, key, timeout) do
    case DurableServer.Supervisor.lookup(config.name, key) do
      {pid, _meta} -> with :ok <- stop_process(config, pid, timeout), do: {:ok, true}
      nil -> {:ok, false}
    end
  end

  defp stop_process(config, pid, timeout) do
    ttl = max(@least_reservation_ms, config.restart_start_timeout_ms + @reservation_margin_ms)
    :ok = GenServer.call(pid, {:durable, {:stop_for_rehome, Atom.to_string(node()), ttl, :normal}}, timeout)
    ref = Process.monitor(pid)

    receive do
      {:DOWN, ^ref, :process, _pid, _reason} -> :ok
    after
      timeout ->
        Process.demonitor(ref, [:flush])
        {:error, :shutdown_timeout}
    end
  catch
    :exit, reason -> {:error, {:shutdown_call_failed, reason}}
  end

  defp left(config, key, ran?) do
    case Object.read(config.storage_backend, Config.storage_key(config, key)) do
      {:ok, stored} -> if ran? and not ours?(stored.meta), do: lost(stored.meta), else: {:ok, start_opts(stored)}
      {:error, :not_found} when not ran? -> {:ok, []}
      {:error, reason} -> {:error, reason}
    end
  end

  # Raises where there has been no reservation, as the package does.
  defp ours?(meta),
    do: Meta.reserved?(meta, System.system_time(:millisecond)) and meta.restart_attempt_node == Atom.to_string(node())

  defp lost(meta),
    do: {:error, {:rehome_reservation_lost, Map.take(meta, [:restart_attempt_node, :restart_attempt_ttl])}}

  defp start_opts(stored), do: [preloaded: stored, reservation: Atom.to_string(node())]

  defp start(config, child, opts, nil) do
    {module, _child_opts} = child

    case LifecycleManager.find_eligible_nodes(config.name, module, limit: @targets_tried, sticky_placement: nil) do
      [] -> start_here(config, child, opts)
      targets -> Placement.try_nodes(targets, &Remote.start(config, &1, child, opts))
    end
  end

  defp start(config, child, opts, target) do
    # DurableServer has no clause for `:ignore` either.
    case Remote.start(config, target, child, opts) do
      {:ok, started} -> {:ok, started}
      {:error, reason} -> {:error, reason}
    end
  end

  defp start_here(config, child, opts) do
    case Starter.start_here(config.name, child, opts) do
      {:ok, started} -> {:ok, started}
      {:error, {:already_started, {pid, meta}}} -> {:ok, {pid, meta}}
      {:error, reason} -> {:error, reason}
    end
  end
end
