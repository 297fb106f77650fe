defmodule DurableHandoff.Host.Takeover do
  @moduledoc false
  # Starts a server on this node that another node has stopped, if that is allowed.
  #
  # Guarantees:
  #
  #   * Every start is DurableServer's own claim, a conditional write over the version that was read. Of all that
  #     try at the same time (a discovery sweep, a client, another receiver) one succeeds. Trying too early costs
  #     a read, never a second owner.
  #   * It starts a server only if `source` stopped it gracefully, if `source` died while it ran and its lock has
  #     expired, or if another node has failed to start it since. It does not start a server that was stopped
  #     for good, deleted, cordoned or has crashed, or that another node has run since.
  #   * Never raises. Every answer of DurableServer, also one of a later version, is one of `t:outcome/0`.
  #
  # Two reads and two writes when it starts; the first read alone when it may not.

  alias DurableHandoff.{Apart, Clock, Host}
  alias DurableHandoff.Host.{Outcome, Sync, UnknownAnswer}

  @typedoc "A node, and the wall-clock time until which its last heartbeat in a server's state keeps the lock."
  @type lock :: {node_name :: String.t(), until_ms :: integer()}

  @typedoc """
    * `:started`: it runs here now;
    * `{:running, node}`: another node started it, or it never stopped;
    * `{:wait, why}`: not now: it is still up at the source, being started elsewhere, reserved, or locked by a
      node that cannot be reached and is not known to be dead (`t:lock/0`);
    * `{:refused, why}`: not here: this node is `:draining` or `:full`;
    * `{:failed, why}`: the `:store` did not answer, or the `:server` itself failed to start; `:unknown` can
      be either;
    * `{:left_alone, status}`: only an explicit request may start it.
  """
  @type outcome ::
          :started
          | {:running, node()}
          | {:wait, :still_running | :starting | :reserved | {:locked, lock()}}
          | {:refused, :draining | :full}
          | {:failed, :store | :server | :unknown}
          | {:left_alone, atom()}

  # The time limit for the answer of a running server.
  @patience_ms 1_000
  # The time for DurableServer's own answer that the time is up.
  @margin_ms 1_000

  @doc """
  Starts the server on this node, if `source` has stopped it and no other node runs it. Blocks up to
  `timeout_ms`, and a second more while the store does not answer, whose reads DurableServer does not limit. A server
  whose start has begun continues to boot then.
  """
  @spec start(Host.name(), term(), module(), source :: node(), timeout_ms :: pos_integer()) :: outcome()
  def start(name, key, module, source, timeout_ms) do
    until_us = Clock.after_ms(timeout_ms)

    case Apart.run(fn -> try_to_start(name, key, module, source, until_us) end, timeout_ms + @margin_ms) do
      {:ok, outcome} -> outcome
      {:died, :timeout} -> {:failed, :store}
      {:died, _reason} -> {:failed, :unknown}
    end
  end

  defp try_to_start(name, key, module, source, until_us) do
    with nil <- running(name, key, source),
         {:ok, %{meta: meta}} <- Host.stored(Host.storage(name), key),
         :ok <- permitted(name, meta, Atom.to_string(source), System.system_time(:millisecond)) do
      name |> ensure(key, module, max(Clock.until_ms(until_us), 1)) |> meaning(source)
    else
      {:error, :not_found} -> {:left_alone, :deleted}
      {:error, reason} -> {:failed, Outcome.blame_read(reason)}
      outcome -> outcome
    end
  end

  @doc "Whether this node's registry still names a process of `source`."
  @spec at_source?(Host.name(), term(), source :: node()) :: boolean()
  def at_source?(name, key, source), do: match?({:elsewhere, pid} when node(pid) == source, Host.lookup(name, key))

  @doc """
  Whether a start may succeed although a node holds the lock: the node can be reached, so DurableServer asks
  it whether the process is alive; or its newest heartbeat is too old. Reads no storage.
  """
  @spec open?(Host.name(), lock()) :: boolean()
  def open?(name, {node_name, until_ms}) do
    connected?(node_name) or
      case health(name, node_name) do
        {:healthy, _heartbeat} -> false
        :unknown -> System.system_time(:millisecond) > until_ms
        _stale -> true
      end
  end

  defp healthy?(name, node_name), do: match?({:healthy, _heartbeat}, health(name, node_name))

  defp health(name, node_name) do
    apply(DurableServer.LifecycleManager, :lookup_node_health, [%{supervisor: name, node_str: node_name}])
  catch
    # DurableServer does not run here, so no server can be started here.
    _kind, _reason -> {:healthy, nil}
  end

  # A registered process may still fail to start: DurableServer registers it before its first write.
  defp running(name, key, source) do
    case Host.lookup(name, key) do
      {:elsewhere, pid} when node(pid) == source -> {:wait, :still_running}
      {_place, pid} -> started(Sync.started?(pid, @patience_ms), pid)
      nil -> nil
    end
  end

  defp started(true, pid), do: {:running, node(pid)}
  # A suspended node may still fail to start it when it continues.
  defp started(:unknown, _pid), do: {:wait, :starting}
  defp started(false, _pid), do: nil

  defp permitted(name, meta, source, now_ms) do
    owner = meta |> Map.get(:node_str) |> to_string()

    case Map.get(meta, :status) do
      _any when owner != source -> other_owner(name, meta, owner)
      :stopped_graceful -> if reserved?(meta, now_ms), do: {:wait, :reserved}, else: :ok
      :running -> lock(name, meta, owner)
      status when is_atom(status) -> {:left_alone, status}
      _unknown -> {:left_alone, :unknown}
    end
  end

  # Either a start on that node or this one that is not registered yet, or a failed start, after which only a
  # request starts the server.
  defp other_owner(name, %{status: :running, pid: pid} = meta, owner) when is_pid(pid) do
    case Host.alive?(pid) do
      true -> {:wait, :starting}
      false -> :ok
      # A connected node that does not answer, such as a suspended one, keeps the lock while its heartbeats count.
      :unknown -> if connected?(owner) and healthy?(name, owner), do: {:wait, :starting}, else: lock(name, meta, owner)
    end
  end

  defp other_owner(_name, _meta, _owner), do: {:left_alone, :ran_elsewhere}

  # DurableServer's claim asks a reachable node whether the process is alive.
  defp lock(name, meta, owner) do
    heartbeat_ms = with stamp when not is_integer(stamp) <- Map.get(meta, :last_heartbeat_at), do: 0
    lock = {owner, heartbeat_ms + Host.lock_heartbeat_age_ms(name)}
    if open?(name, lock), do: :ok, else: {:wait, {:locked, lock}}
  end

  defp connected?(owner), do: owner in Enum.map([node() | Node.list(:connected)], &Atom.to_string/1)

  defp reserved?(meta, now_ms) do
    until_ms = Map.get(meta, :restart_attempt_ttl)
    Map.get(meta, :restart_attempt_node) != nil and is_integer(until_ms) and until_ms > now_ms
  end

  defp ensure(name, key, module, timeout_ms) do
    child = {module, key: key, initial_state: %{}}
    options = [existing: true, local_only: true, timeout: timeout_ms]
    {:returned, apply(DurableServer.Supervisor, :ensure_started_child, [name, child, options])}
  catch
    kind, reason -> {:raised, kind, reason}
  end

  @doc """
  What DurableServer's answer means.

  | answer of `ensure_started_child` | outcome |
  |---|---|
  | `{:ok, {pid, _}}`, `{:already_started, {pid, _}}` | by the node of `pid` |
  | `:timeout`, `{:unreachable, _}`, `:singleflight_overloaded`, `:not_ready`, `:conflict` | `{:wait, :starting}`: later |
  | `{:already_started, :deleting}`, `:cordoned`, `:permanently_crashed` | `{:left_alone, _}` |
  | `{:capacity_limit, :node_shutting_down}` | `{:refused, :draining}` |
  | `{:capacity_limit, _}`, `:max_children` (0.1.4 and older) | `{:refused, :full}` |
  | `:not_found` | `{:failed, :store}`: it was there a moment ago, and before 0.1.7 a read that failed looks the same |
  | any other | `{:failed, _}`, by `DurableHandoff.Host.Outcome.blame/1` |
  """
  @spec meaning({:returned, term()} | {:raised, atom(), term()}, node()) :: outcome()
  def meaning({:returned, {:ok, {pid, _meta}}}, source) when is_pid(pid), do: runs(pid, source)
  def meaning({:returned, {:error, reason}}, source), do: error(reason, source)
  def meaning({:returned, :ignore}, _source), do: {:failed, :server}
  # DurableServer's local answer while it boots.
  def meaning({:raised, :throw, {:error, :not_ready}}, _source), do: {:wait, :starting}

  # A DurableServer that is starting, stopping or gone.
  def meaning({:raised, :exit, _reason}, _source), do: {:failed, :unknown}
  def meaning({:returned, answer}, _source), do: unknown(answer)
  def meaning({:raised, _kind, reason}, _source), do: unknown(reason)

  @later [:timeout, :singleflight_overloaded, :not_ready, :conflict, :already_claimed]
  @over [:cordoned, :permanently_crashed]

  defp error({:already_started, {pid, _meta}}, source) when is_pid(pid), do: runs(pid, source)
  defp error({:already_started, :deleting}, _source), do: {:left_alone, :deleting}
  defp error({:already_started, _lock}, _source), do: {:wait, :starting}
  # Found alive by a call to its node, but not in the registry yet.
  defp error({:unreachable, _pid_or_noproc}, _source), do: {:wait, :starting}
  defp error({:capacity_limit, :node_shutting_down}, _source), do: {:refused, :draining}
  defp error({:capacity_limit, _limit}, _source), do: {:refused, :full}
  defp error(:max_children, _source), do: {:refused, :full}
  defp error(reason, _source) when reason in @later, do: {:wait, :starting}
  defp error(status, _source) when status in @over, do: {:left_alone, status}
  defp error(:not_found, _source), do: {:failed, :store}

  defp error(reason, _source) do
    case Outcome.blame(reason) do
      blame when blame in [:server, :store] -> {:failed, blame}
      :target -> {:failed, :unknown}
      :unknown -> unknown({:error, reason})
    end
  end

  defp unknown(answer) do
    UnknownAnswer.note(:ensure_started_child, answer)
    {:failed, :unknown}
  end

  defp runs(pid, _source) when node(pid) == node(), do: :started
  # The source's registry still has the process, although it has ended.
  defp runs(pid, source) when node(pid) == source, do: {:wait, :starting}
  # The registry still has the process, although its start has failed.
  defp runs(pid, _source),
    do: started(Sync.started?(pid, @patience_ms), pid) || {:wait, :starting}
end
