defmodule DurableServer.Starter do
  @moduledoc """
  Starts one server on this node and waits until it is up or has failed.

  Of several starts of one key at a time one goes ahead; the others wait for it and find it already started.
  """

  alias DurableServer.{Config, Server, StoredState}

  @type child :: {module(), keyword()}
  @type opts :: [preloaded: StoredState.t(), reservation: String.t(), timeout: timeout()]

  @spec start(atom(), child(), opts()) :: Server.result()
  def start(supervisor, {module, child_opts}, opts \\ []) do
    with {:ok, config} <- Config.fetch(supervisor),
         true <- Config.ready?(config) do
      request = %{
        config: config,
        module: module,
        key: Keyword.fetch!(child_opts, :key),
        initial_state: Keyword.get(child_opts, :initial_state, %{}),
        preloaded: opts[:preloaded],
        reservation: opts[:reservation]
      }

      start_request(request, opts[:timeout] || config.restart_start_timeout_ms)
    else
      _not_up -> {:error, :not_ready}
    end
  end

  defp start_request(%{config: config, key: key} = request, timeout) do
    case Group.lookup(config.name, key) do
      {pid, meta} when node(pid) != node() -> {:error, {:already_started, {pid, meta.user_meta}}}
      _free_or_local -> run(request, timeout)
    end
  end

  defp run(request, timeout) do
    # An alias: an answer that comes after the timeout is dropped, not left in the caller's mailbox.
    starter = :erlang.alias()

    result =
      case DynamicSupervisor.start_child(request.config.dynamic_supervisor, {Server, {request, starter}}) do
        {:ok, pid} -> await(starter, pid, timeout)
        :ignore -> await(starter, nil, timeout)
        {:error, reason} -> {:error, reason}
      end

    :erlang.unalias(starter)

    case result do
      {:error, {:already_registered, pid}} -> join(request, pid, timeout)
      result -> result
    end
  end

  defp await(starter, pid, timeout) do
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
      timeout ->
        ref && Process.demonitor(ref, [:flush])
        {:error, :timeout}
    end
  end

  # Somebody else's start, or a running server: queued behind its start, the question is answered when it is up.
  defp join(request, pid, timeout) do
    {:error, {:already_started, {pid, GenServer.call(pid, {:durable, :await_start}, timeout)}}}
  catch
    :exit, {:timeout, _call} -> {:error, :timeout}
    :exit, _it_failed -> start_request(request, timeout)
  end
end
