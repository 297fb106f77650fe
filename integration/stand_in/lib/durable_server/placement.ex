defmodule DurableServer.Placement do
  @moduledoc """
  Where a start asked for on this node happens: here, unless this node is full or draining; then on the best
  eligible nodes, one after the other.
  """

  alias DurableServer.{Config, LifecycleManager, Object, Remote, Server, SingleFlight, Starter, StoredState}

  @retries 3
  @timeout_ms 5_000

  @spec start(atom(), Starter.child(), keyword()) :: Server.result()
  def start(supervisor, child, opts) do
    start_opts = [timeout: Keyword.get(opts, :timeout, @timeout_ms)] ++ Keyword.take(opts, [:preloaded])

    if Keyword.get(opts, :local_only, false) do
      Starter.start_here(supervisor, child, start_opts)
    else
      case Starter.start(supervisor, child, start_opts) do
        {:error, {:capacity_limit, _reason}} -> start_elsewhere(supervisor, child, opts, start_opts)
        result -> result
      end
    end
  end

  defp start_elsewhere(supervisor, {module, child_opts} = child, opts, start_opts) do
    config = Config.fetch!(supervisor)
    limit = Keyword.get(opts, :max_placement_retries, @retries)

    case LifecycleManager.find_eligible_nodes(supervisor, module, limit: limit, key: child_opts[:key]) do
      [] -> {:error, {:capacity_limit, :no_available_nodes}}
      targets -> try_nodes(targets, &Remote.start(config, &1, child, start_opts, opts[:placement_timeout]))
    end
  end

  @doc "The first target that starts the server, or has it."
  @spec try_nodes([node()], (node() -> Server.result())) :: Server.result()
  def try_nodes(targets, start) do
    Enum.find_value(targets, {:error, {:capacity_limit, :all_placement_attempts_failed}}, fn target ->
      case tried(fn -> start.(target) end) do
        {:ok, started} -> {:ok, started}
        {:error, {:already_started, {pid, meta}}} -> {:ok, {pid, meta}}
        _failed -> nil
      end
    end)
  end

  # When a target answers with an error, raises or throws, the next one is tried.
  defp tried(fun) do
    fun.()
  catch
    _kind, reason -> {:error, reason}
  end

  @doc """
  Like `start/3`, but a server that runs is fine.

  The stored object is read first, and the start is conditional on its etag, so with `existing: true` a server
  that is deleted meanwhile is not created again. Returns `{:error, {:unreachable, pid}}` for a server whose
  owner is not in this node's registry.
  """
  @spec ensure(atom(), Starter.child(), keyword()) :: Server.result()
  def ensure(supervisor, {module, child_opts} = child, opts) do
    config = Config.fetch!(supervisor)
    key = Keyword.fetch!(child_opts, :key)
    SingleFlight.run(config.flight_registry, {:ensure, key, module}, fn -> find_or_start(config, key, child, opts) end)
  end

  defp find_or_start(%{name: supervisor} = config, key, child, opts) do
    deadline = Starter.deadline(Keyword.get(opts, :timeout, @timeout_ms))

    with nil <- DurableServer.Supervisor.lookup(supervisor, key),
         {:ok, preloaded} <- stored(config, key, opts),
         opts = Keyword.put(Keyword.delete(opts, :existing), :timeout, Starter.left(deadline)),
         {:error, {:already_started, owner}} <- start(supervisor, child, preloaded ++ opts) do
      found(config, key, owner, deadline)
    else
      {pid, meta} when is_pid(pid) -> {:ok, {pid, meta}}
      result -> result
    end
  end

  defp found(_config, _key, {pid, meta}, _deadline), do: {:ok, {pid, meta}}
  defp found(_config, _key, :deleting, _deadline), do: {:error, {:already_started, :deleting}}
  defp found(_config, _key, :noproc, _deadline), do: {:error, {:unreachable, :noproc}}

  defp found(config, key, pid, deadline) do
    until = System.monotonic_time(:millisecond) + min(Starter.left(deadline), Starter.registration_ms())

    case Starter.await_registration(config.name, key, until) do
      {^pid, meta} -> {:ok, {pid, meta}}
      _other_or_none -> {:error, {:unreachable, pid}}
    end
  end

  # A failing store counts as a store without the object.
  defp stored(config, key, opts) do
    existing? = Keyword.get(opts, :existing, false)

    case Object.read(config.storage_backend, Config.storage_key(config, key), consistent: existing?) do
      {:ok, %StoredState{meta: %{status: :deleting}}} when not existing? -> {:ok, []}
      {:ok, stored} -> {:ok, [preloaded: stored]}
      {:error, _reason} -> if existing?, do: {:error, :not_found}, else: {:ok, []}
    end
  end
end
