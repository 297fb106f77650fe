defmodule DurableServer.Starter do
  @moduledoc """
  Starts one server on this node and waits until it is up or has failed.

  If several starts of one key run at the same time, one proceeds, and the others wait and find the server
  already started.
  """

  alias DurableServer.{Config, LifecycleManager, Server, StoredState}

  @ready_ms 500
  @timeout_ms 5_000
  @ask_again_ms 100
  # How long to wait until an owner named in the store is registered.
  @registration_ms 5_000

  @type child :: {module(), keyword()}
  @type opts :: [preloaded: StoredState.t(), reservation: String.t(), timeout: timeout()]

  @doc "A start requested by another node. Throws `{:error, :not_ready}` if the supervisor is not up."
  @spec start_here(atom(), child(), opts()) :: Server.result()
  def start_here(supervisor, child, opts) do
    case DurableServer.Supervisor.wait_until_ready(supervisor, timeout: @ready_ms, poll_interval: 10) do
      :ok -> start(supervisor, child, opts)
      {:error, :timeout} -> throw({:error, :not_ready})
    end
  end

  @doc """
  Errors besides those of `init`: `{:already_started, {pid, meta}}`, `{:already_started, pid}` of an owner
  that is not in this node's registry, `{:already_started, :deleting}`, `{:capacity_limit, reason}`,
  `:cordoned`, `:timeout`.
  """
  @spec start(atom(), child(), opts()) :: Server.result()
  def start(supervisor, {module, child_opts}, opts \\ []) do
    request = %{
      config: Config.fetch!(supervisor),
      module: module,
      key: Keyword.fetch!(child_opts, :key),
      initial_state: Keyword.get(child_opts, :initial_state, %{}),
      preloaded: opts[:preloaded],
      reservation: opts[:reservation]
    }

    start_until(request, deadline(Keyword.get(opts, :timeout, @timeout_ms)))
  end

  defp start_until(%{config: config, key: key} = request, deadline) do
    case DurableServer.Supervisor.lookup(config.name, key) do
      {pid, meta} -> {:error, {:already_started, {pid, meta}}}
      nil -> request |> run(deadline) |> follow(request, deadline)
    end
  end

  # A node has claimed the server for a restart: wait for the claim, then for its owner. A claim that expired
  # is tried again.
  defp follow({:error, {:restart_claimed, node_str}}, request, deadline) do
    %{config: config, key: key} = request

    case {DurableServer.Supervisor.lookup(config.name, key), left(deadline)} do
      {{pid, meta}, _left} ->
        {:error, {:already_started, {pid, meta}}}

      {nil, 0} ->
        {:error, :timeout}

      {nil, left} ->
        Process.sleep(min(left, @ask_again_ms))

        if match?({:healthy, _}, LifecycleManager.lookup_node_health(%{supervisor: config.name, node_str: node_str})),
          do: follow({:error, {:restart_claimed, node_str}}, request, deadline),
          else: start_until(%{request | preloaded: nil}, deadline)
    end
  end

  # Another start was faster. Its owner will be registered soon.
  defp follow({:error, :conflict}, %{config: config, key: key} = request, deadline) do
    wait_until = System.monotonic_time(:millisecond) + min(left(deadline), @registration_ms)

    case await_registration(config.name, key, wait_until) do
      {pid, meta} ->
        {:error, {:already_started, {pid, meta}}}

      nil ->
        case DurableServer.Object.read(config.storage_backend, Config.storage_key(config, request.key)) do
          {:ok, %{meta: %{pid: pid}}} when is_pid(pid) -> {:error, {:already_started, pid}}
          _none -> {:error, {:already_started, :noproc}}
        end
    end
  end

  defp follow(result, _request, _deadline), do: result

  @doc "Polls this node's registry for the owner until the given time; nil if there is none by then."
  @spec await_registration(atom(), String.t(), integer()) :: {pid(), map() | nil} | nil
  def await_registration(supervisor, key, until) do
    with nil <- DurableServer.Supervisor.lookup(supervisor, key) do
      left = until - System.monotonic_time(:millisecond)

      if left > 0 do
        Process.sleep(min(left, @ask_again_ms))
        await_registration(supervisor, key, until)
      end
    end
  end

  @spec registration_ms() :: pos_integer()
  def registration_ms, do: @registration_ms

  defp run(request, deadline) do
    # An alias: an answer that comes after the timeout is dropped, not left in the caller's mailbox.
    starter = :erlang.alias()

    result =
      case DynamicSupervisor.start_child(request.config.dynamic_supervisor, {Server, {request, starter}}) do
        {:ok, pid} -> await(starter, pid, deadline)
        :ignore -> await(starter, nil, deadline)
        {:error, reason} -> {:error, reason}
      end

    :erlang.unalias(starter)

    case result do
      {:error, {:already_registered, pid}} -> join(request, pid, deadline)
      result -> result
    end
  end

  defp await(starter, pid, deadline) do
    ref = pid && Process.monitor(pid)

    receive do
      {^starter, result} ->
        ref && Process.demonitor(ref, [:flush])
        result

      {:DOWN, ^ref, :process, _pid, reason} ->
        receive do
          {^starter, result} -> result
        after
          0 -> {:error, reason}
        end
    after
      left(deadline) ->
        ref && Process.demonitor(ref, [:flush])
        {:error, :timeout}
    end
  end

  # Another caller's start, or a running server. The call is queued behind the start, so it is answered when
  # the server is up.
  defp join(request, pid, deadline) do
    {:error, {:already_started, {pid, GenServer.call(pid, {:durable, :await_start}, left(deadline))}}}
  catch
    :exit, {:timeout, _call} -> {:error, :timeout}
    :exit, _it_failed -> start_until(request, deadline)
  end

  @doc false
  @spec deadline(timeout()) :: integer() | :infinity
  def deadline(:infinity), do: :infinity
  def deadline(timeout), do: System.monotonic_time(:millisecond) + timeout

  @doc false
  @spec left(integer() | :infinity) :: timeout()
  def left(:infinity), do: :infinity
  def left(deadline), do: max(deadline - System.monotonic_time(:millisecond), 0)
end
