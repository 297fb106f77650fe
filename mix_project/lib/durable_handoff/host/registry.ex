defmodule DurableHandoff.Host.Registry do
  @moduledoc false
  # DurableServer's registry: lookups by key, and an event for each key that is registered or unregistered.
  #
  # Guarantees: nothing here raises or exits because DurableServer is absent, busy or of a later version. An
  # owner that is returned could be reached from this node a moment ago. All functions but `start/4` read this
  # node's replica and wait for no other node. Events can be lost while a replica is cut off, so waiters also
  # poll.
  #
  # Callers take the module as an argument, so that tests can force the order in which a registry learns of a
  # move.

  alias DurableHandoff.{Apart, Host}
  alias DurableHandoff.Host.{Outcome, UnknownAnswer}

  # The time for DurableServer's own answer that the time is up.
  @margin_ms 1_000

  @type key :: term()
  @typedoc "`:stored`: only a server that is in the store is started."
  @type start :: {module(), initial_state :: map() | :stored}
  @typedoc "The process that was registered or unregistered under the key."
  @type event :: {:registered | :unregistered, key(), pid()}

  @doc """
  The process that owns `key` as this node knows it; nil when there is none or it cannot be reached from here.
  """
  @spec owner(Host.name(), key()) :: pid() | nil
  def owner(name, key) do
    case Host.lookup(name, key) do
      {:here, pid} -> pid
      {:elsewhere, pid} -> if reachable?(pid), do: pid
      nil -> nil
    end
  end

  @doc "Whether `pid` can be sent a message: its node is connected or, on this node, it is alive."
  @spec reachable?(pid()) :: boolean()
  def reachable?(pid) when node(pid) == node(), do: Process.alive?(pid)
  def reachable?(pid), do: node(pid) in Node.list(:connected)

  @doc "Sends the calling process a message for every event of `key`, or of `:all` keys, from now on."
  @spec subscribe(Host.name(), key() | :all) :: :ok | {:error, term()}
  def subscribe(name, key), do: Host.perform(Group, :monitor, [name, key])

  @doc "Undoes `subscribe/2`. Messages that were already sent still arrive."
  @spec unsubscribe(Host.name(), key() | :all) :: :ok
  def unsubscribe(name, key) do
    Host.perform(Group, :demonitor, [name, key])
    :ok
  end

  @doc "The events in a message of the registry, in their order; none in any other message."
  @spec events(message :: term()) :: [event()]
  def events({:group, events, _info}) when is_list(events) do
    for %{type: type, key: key, pid: pid} <- events, is_pid(pid), type in [:registered, :unregistered] do
      {type, key, pid}
    end
  end

  def events(_other), do: []

  @doc """
  A process that lives as long as the registry and its subscriptions; nil when DurableServer is not up on this
  node.
  """
  @spec up(Host.name()) :: pid() | nil
  def up(name), do: Host.whereis(name)

  @doc """
  Starts the server by DurableServer's own claim rules, on a node that they choose.

  | result | answers of `ensure_started_child` |
  |---|---|
  | `{:ok, pid}`: a process to try | `{:ok, {pid, _}}`; `{:already_started, {pid, _}}`; `{:already_started, pid}` and `{:unreachable, pid}` while this node is connected to it: that process holds the lock, the registry does not name it yet |
  | `{:again, reason}`: later | `:timeout`, `:not_ready`, `:singleflight_overloaded`, `:conflict`, `:max_children` (before 0.1.5), `{:already_started, :deleting}`, `{:already_started, :noproc}`, `{:unreachable, _}`, `{:restart_claimed, _}`, `{:locked, _}`, `{:erpc, _}`, `{:capacity_limit, _}`, `{:circuit_open, _}`, errors of the store (`DurableHandoff.Host.Outcome.blame/1`), and every answer that is not known |
  | `{:error, reason}`: final | `:ignore`, `:cordoned`, `:permanently_crashed`, `:not_found`, `{:bad_init_return, _}`, an exception of its `init` or `load_state`, a module that does not exist, a stored state that cannot be read, arguments that DurableServer refuses |

  `:cordoned` is final because only an operator ends it; `{:capacity_limit, _}` is not, because a node that
  starts or stops ends it.

  The request runs in a process of its own, because DurableServer's registry links it: it ends with that registry, in a
  restart of the supervisor, and then the result is `{:again, reason}`.

  Returns after twice `timeout_ms`, or a second after it, at the latest, with `{:again, :timeout}`. DurableServer does not
  limit the time of its read of the store. A server whose start has begun continues to boot then.
  """
  @spec start(Host.name(), key(), start(), timeout_ms :: pos_integer()) ::
          {:ok, pid()} | {:again, term()} | {:error, term()}
  def start(name, key, start, timeout_ms) do
    case Apart.run(fn -> request(name, key, start, timeout_ms) end, timeout_ms + min(timeout_ms, @margin_ms)) do
      {:ok, result} -> result
      {:died, reason} -> {:again, reason}
    end
  end

  defp request(name, key, {module, initial_state}, timeout_ms) do
    {initial_state, options} = if initial_state == :stored, do: {%{}, [existing: true]}, else: {initial_state, []}
    child = {module, key: key, initial_state: initial_state}
    started(apply(DurableServer.Supervisor, :ensure_started_child, [name, child, [timeout: timeout_ms] ++ options]))
  catch
    # DurableServer throws this while it boots.
    :throw, {:error, reason} -> refused(reason)
    # A supervisor that is starting or stopping on this node.
    :exit, reason -> {:again, reason}
    kind, reason -> raised(kind, Exception.normalize(kind, reason, __STACKTRACE__), __STACKTRACE__)
  end

  @doc false
  @spec started(term()) :: {:ok, pid()} | {:again, term()} | {:error, term()}
  def started({:ok, {pid, _meta}}) when is_pid(pid), do: {:ok, pid}
  def started(:ignore), do: {:error, :ignore}
  def started({:error, reason}), do: refused(reason)
  def started(answer), do: unknown(answer, answer)

  @final [:ignore, :cordoned, :permanently_crashed, :not_found]
  @later [:timeout, :not_ready, :singleflight_overloaded, :conflict, :already_claimed, :max_children]
  @later_tags [:already_started, :unreachable, :restart_claimed, :locked, :erpc, :capacity_limit, :circuit_open]

  defp refused({:already_started, {pid, _meta}}) when is_pid(pid), do: {:ok, pid}

  defp refused({tag, pid} = reason) when tag in [:already_started, :unreachable] and is_pid(pid),
    do: if(reachable?(pid), do: {:ok, pid}, else: {:again, reason})

  defp refused(reason) when reason in @final, do: {:error, reason}
  defp refused({:bad_init_return, _value} = reason), do: {:error, reason}
  defp refused({:undef, [_call | _stack]} = reason), do: {:error, reason}
  defp refused(reason) when reason in @later, do: {:again, reason}
  defp refused({tag, _detail} = reason) when tag in @later_tags, do: {:again, reason}

  defp refused(reason) do
    case Outcome.blame(reason) do
      :server -> {:error, reason}
      :unknown -> unknown({:error, reason}, reason)
      _store_or_target -> {:again, reason}
    end
  end

  # Raised by DurableServer itself: invalid arguments, or its code is missing.
  defp raised(:error, %ArgumentError{} = error, [{DurableServer.Supervisor, _function, _arity, _location} | _stack]),
    do: {:error, {:error, error}}

  defp raised(:error, %UndefinedFunctionError{} = error, _stack), do: {:error, {:error, error}}
  # The tables do not exist while DurableServer starts or stops.
  defp raised(:error, %ArgumentError{} = error, _stack), do: {:again, {:error, error}}
  defp raised(kind, reason, _stack), do: unknown({kind, reason}, {kind, reason})

  # An answer of a later version, or the exit reason of the server's `init`.
  defp unknown(answer, reason) do
    UnknownAnswer.note(:ensure_started_child, answer)
    {:again, reason}
  end
end
