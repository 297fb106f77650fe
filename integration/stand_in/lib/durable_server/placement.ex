defmodule DurableServer.Placement do
  @moduledoc """
  Where a start asked for on this node happens: here, unless this node is full or draining; then on the best eligible nodes,
  one after the other.
  """

  alias DurableServer.{Config, LifecycleManager, Remote, Server, Starter}

  @retries 3
  @ask_again_ms 100

  @spec start(atom(), Starter.child(), keyword()) :: Server.result()
  def start(supervisor, child, opts) do
    with :ok <- DurableServer.Supervisor.wait_until_ready(supervisor, timeout: opts[:timeout] || 5_000) do
      case Starter.start(supervisor, child, Keyword.take(opts, [:timeout, :preloaded])) do
        {:error, reason} = refused ->
          if elsewhere?(reason) and not Keyword.get(opts, :local_only, false),
            do: start_elsewhere(supervisor, child, opts, refused),
            else: refused

        result ->
          result
      end
    end
  end

  defp elsewhere?(:shutting_down), do: true
  defp elsewhere?({:capacity_limit, _limit}), do: true
  defp elsewhere?(_reason), do: false

  defp start_elsewhere(supervisor, {module, child_opts} = child, opts, refused) do
    config = Config.fetch!(supervisor)
    limit = Keyword.get(opts, :max_placement_retries, @retries)

    supervisor
    |> LifecycleManager.find_eligible_nodes(module, limit: limit, key: child_opts[:key])
    |> Enum.reduce_while(refused, fn target, _last ->
      case Remote.start(config, target, child, Keyword.take(opts, [:timeout, :preloaded]), opts[:placement_timeout]) do
        {:error, {:already_started, _}} = result -> {:halt, result}
        {:error, _reason} = result -> {:cont, result}
        result -> {:halt, result}
      end
    end)
  end

  @doc """
  Like `start/3`, but a server that runs is fine, and one that another node is about to give up is waited for.

  What is stored is read first and started from under that etag: with `existing: true`, a server that is deleted meanwhile is not
  started anew.
  """
  @spec ensure(atom(), Starter.child(), keyword()) :: Server.result()
  def ensure(supervisor, child, opts) do
    config = Config.fetch!(supervisor)
    deadline = System.monotonic_time(:millisecond) + (opts[:timeout] || config.restart_start_timeout_ms)
    ensure_until(config, child, opts, deadline)
  end

  defp ensure_until(config, {_module, child_opts} = child, opts, deadline) do
    with nil <- DurableServer.Supervisor.lookup(config.name, child_opts[:key]),
         {:ok, preloaded} <- stored(config, child_opts[:key], opts),
         {:error, reason} <- start(config.name, child, preloaded ++ Keyword.delete(opts, :existing)) do
      case reason do
        {:already_started, found} -> {:ok, found}
        waiting when waiting in [:reserved, :locked, :conflict] -> wait(config, child, opts, deadline)
        reason -> {:error, reason}
      end
    else
      {pid, meta} when is_pid(pid) -> {:ok, {pid, meta}}
      result -> result
    end
  end

  defp wait(config, child, opts, deadline) do
    left = deadline - System.monotonic_time(:millisecond)

    if left <= 0 do
      {:error, :timeout}
    else
      Process.sleep(min(left, @ask_again_ms))
      ensure_until(config, child, opts, deadline)
    end
  end

  defp stored(config, key, opts) do
    case DurableServer.Object.read(config.storage_backend, Config.storage_key(config, key)) do
      {:ok, stored} -> {:ok, [preloaded: stored]}
      {:error, _reason} -> if opts[:existing], do: {:error, :not_found}, else: {:ok, []}
    end
  end
end
