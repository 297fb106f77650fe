defmodule DurableHandoff.Host.Outcome do
  @moduledoc false
  # Translates an answer of `rehome_child/3` to what it means for the server.
  #
  # Guarantee: every answer, also one of a later version, becomes one of the engine's outcomes or `{:verify,
  # question}`, which `DurableHandoff.Host.Rehome` settles by finding out where the server is. An unknown
  # answer is never taken for a success.
  #
  # | answer | outcome |
  # |---|---|
  # | `{:ok, {pid, _}}` on another node | `{:moved, nil}`, or `{:moved, node}` when it is not the target |
  # | `{:ok, {old_pid, _}}`, `{:error, {:already_started, {old_pid, _}}}` | `:retry_same`: the target has not seen the stop yet |
  # | `{:error, {:already_started, {pid, _}}}` | `{:verify, {:runs_as, pid}}`: it is registered, so its `init` has run |
  # | `{:error, {:already_started, pid}}`, `{:unreachable, pid}` | `{:verify, {:boots_as, pid}}`: that process holds the lock, and may still be in `init` |
  # | `{:error, :timeout}`, `{:error, {:erpc, :timeout}}` | `{:verify, {:may_come_up, blame}}`: DurableServer has stopped waiting, the start continues |
  # | `{:error, {:already_started, :noproc}}`, `{:restart_claimed, _}` | the same: another start is under way |
  # | `{:error, {:shutdown_call_failed, {:timeout, _}}}`, `{:error, :shutdown_timeout}` | `:stopping`: its `terminate/2` or final write is slow |
  # | `{:error, {:shutdown_call_failed, _}}` | `{:verify, :stopped_by_itself}` |
  # | `{:error, {:rehome_reservation_lost, _}}`, `BadBooleanError` | `{:verify, :reservation_lost}`: without its final write, see `unsaved/1` |
  # | `{:error, :not_found}`, `{:already_started, :deleting}`, `:cordoned`, `:permanently_crashed` | `{:verify, :ended}` |
  # | `{:error, {:capacity_limit, _}}`, `:max_children` (0.1.4 and older), `:not_ready`, `{:erpc, :noconnection}` | `{:displaced, :target}` |
  # | `{:error, :singleflight_overloaded}` | `:untouched` |
  # | any other error; raised, exited, thrown | `{:verify, {:displaced, blame}}`, see `blame/1` |
  #
  # Before that, `DurableHandoff.Drain.StoredFirst` has the server store its state, which can end an attempt
  # with `{:untouched, :store}`, `{:untouched, :server}` or `:not_storable`. An attempt can fail in these ways,
  # each of which counts against the target, the server, the store or nothing:
  #
  # | the attempt | against | which means |
  # |---|---|---|
  # | the target refuses, is full, unreachable or too slow | target | it rests, the server goes to another one; the breaker counts one incident |
  # | the connection to the target is lost meanwhile | nothing | any target that is connected |
  # | the server does not start there: `init` raises, stops, ignores or takes too long | server | another target; the breaker of its module counts it |
  # | the server does not answer a sync in time | server | it is tried again, `max_attempts` times |
  # | its state cannot be dumped or written, and the store takes writes | server | left running, `:not_storable` |
  # | a sync, the read after the stop or the start fails in the store | store | no attempt is charged; a rest, then one attempt at a time until one succeeds |
  # | starts on this target fail in the store, and those on others do not | target | it rests, the server goes to another one |
  # | its final write fails after the stop | store | the same, and `:state_not_stored` in the report wherever it starts again |
  # | its `terminate/2` raises, so there is no final write | nothing | it starts again from the sync just before; `:state_not_stored` in the report |
  # | the store fails one server again and again and serves others | server | `max_attempts` count |
  # | its `terminate/2` or final write is slow | nothing | waited for until the deadline |
  # | the target's registry has not seen the stop | nothing | the same target again |
  # | another node has it, or it ended by itself | nothing | `:lost_race`, `:gone` |
  # | an answer that is not known | nothing | another target; the breaker counts one incident |
  #
  # What each means for the next server is decided in `native/handoff_core/src/engine/outcome.rs`.

  alias DurableHandoff.Native

  @type answer :: {:returned, term()} | {:raised, :error | :exit | :throw, term()}
  @type question ::
          {:runs_as, pid()}
          | {:boots_as, pid()}
          | {:may_come_up, Native.blame()}
          | :stopped_by_itself
          | :reservation_lost
          | :ended
          | {:displaced, Native.blame()}

  @doc "The outcome of `answer` for the server that ran as `old_pid` and was to move to `target`."
  @spec classify(answer(), old_pid :: pid(), target :: node()) :: Native.outcome() | {:verify, question()}
  def classify({:returned, result}, old_pid, target), do: returned(result, old_pid, target)

  def classify({:raised, :error, %ErlangError{original: {:erpc, reason}}}, _old_pid, _target), do: erpc(reason)
  def classify({:raised, :error, {:erpc, reason}}, _old_pid, _target), do: erpc(reason)

  # The error was raised on the target before DurableServer was asked to start the server: it does not run
  # there, or is stopping.
  def classify({:raised, :error, %ErlangError{original: {:exception, reason, _stacktrace}}}, _old_pid, _target),
    do: {:verify, {:displaced, blame_remote(reason)}}

  def classify({:raised, :error, {:exception, reason, _stacktrace}}, _old_pid, _target),
    do: {:verify, {:displaced, blame_remote(reason)}}

  # DurableServer fails like this when it checks a lost reservation (`nil and ...`): the final write was not
  # stored.
  def classify({:raised, :error, {:badbool, :and, nil}}, _old_pid, _target), do: {:verify, :reservation_lost}

  def classify({:raised, :error, %{__struct__: BadBooleanError, operator: :and, term: nil}}, _old_pid, _target),
    do: {:verify, :reservation_lost}

  # DurableServer has no clause for the remote result :ignore.
  def classify({:raised, :error, {:case_clause, :ignore}}, _old_pid, _target), do: {:verify, {:displaced, :server}}

  def classify({:raised, :error, %{__struct__: CaseClauseError, term: :ignore}}, _old_pid, _target),
    do: {:verify, {:displaced, :server}}

  # DurableServer raised in this process. The server's own code runs in other processes, so it is not the
  # cause.
  def classify({:raised, :error, reason}, _old_pid, _target),
    do: {:verify, {:displaced, if(blame(reason) == :store, do: :store, else: :unknown)}}

  def classify({:raised, _exit_or_throw, reason}, _old_pid, _target), do: {:verify, {:displaced, blame(reason)}}

  @doc "Whether `why` means that the connection to the target was lost."
  @spec connection_lost?(term()) :: boolean()
  def connection_lost?(:not_connected), do: true
  def connection_lost?({:returned, {:error, {:erpc, reason}}}), do: reason in [:noconnection, {:erpc, :noconnection}]
  def connection_lost?({:raised, :error, %ErlangError{original: reason}}), do: reason == {:erpc, :noconnection}
  def connection_lost?({:raised, :error, reason}), do: reason == {:erpc, :noconnection}
  def connection_lost?(_other), do: false

  @doc "The process on another node that runs the server now, if `answer` names one that is not `old_pid`."
  @spec owner(answer(), old_pid :: pid()) :: pid() | nil
  def owner({:returned, {:ok, {pid, _meta}}}, old_pid), do: new_owner(pid, old_pid)
  def owner({:returned, {:error, {:already_started, {pid, _meta}}}}, old_pid), do: new_owner(pid, old_pid)
  def owner(_answer, _old_pid), do: nil

  defp new_owner(pid, old_pid) when is_pid(pid) and pid != old_pid and node(pid) != node(), do: pid
  defp new_owner(_other, _old_pid), do: nil

  defp returned(result, old_pid, target) when is_tuple(result) and tuple_size(result) >= 2 do
    case {elem(result, 0), elem(result, 1)} do
      {:ok, started} -> with_pid(started, &started(&1, old_pid, target))
      {:error, reason} -> error(reason, old_pid)
      _unknown -> {:verify, {:displaced, :unknown}}
    end
  end

  defp returned(:ignore, _old_pid, _target), do: {:verify, {:displaced, :server}}
  defp returned(_unknown, _old_pid, _target), do: {:verify, {:displaced, :unknown}}

  defp started(old_pid, old_pid, _target), do: :retry_same
  defp started(pid, _old_pid, target) when node(pid) == target and target != node(), do: {:moved, nil}
  defp started(pid, _old_pid, _target) when node(pid) != node(), do: {:moved, Atom.to_string(node(pid))}
  defp started(pid, _old_pid, _target), do: {:verify, {:runs_as, pid}}

  defp error({:already_started, old_pid}, old_pid), do: :retry_same
  defp error({:already_started, pid}, _old_pid) when is_pid(pid), do: {:verify, {:boots_as, pid}}
  defp error({:already_started, :noproc}, _old_pid), do: {:verify, {:may_come_up, :unknown}}
  defp error({:already_started, :deleting}, _old_pid), do: {:verify, :ended}

  defp error({:already_started, started}, old_pid) do
    with_pid(started, fn pid -> if pid == old_pid, do: :retry_same, else: {:verify, {:runs_as, pid}} end)
  end

  defp error({:unreachable, pid}, old_pid), do: error({:already_started, pid}, old_pid)
  defp error({:restart_claimed, _node}, _old_pid), do: {:verify, {:may_come_up, :unknown}}
  defp error(:timeout, _old_pid), do: {:verify, {:may_come_up, :unknown}}
  defp error(reason, _old_pid) when reason in [:not_found, :cordoned, :permanently_crashed], do: {:verify, :ended}

  defp error({:shutdown_call_failed, :timeout}, _old_pid), do: :stopping

  defp error({:shutdown_call_failed, reason}, _old_pid) when is_tuple(reason) and elem(reason, 0) == :timeout,
    do: :stopping

  defp error({:shutdown_call_failed, _reason}, _old_pid), do: {:verify, :stopped_by_itself}
  defp error(:shutdown_timeout, _old_pid), do: :stopping
  defp error({:shutdown_timeout, _detail}, _old_pid), do: :stopping
  defp error(:rehome_reservation_lost, _old_pid), do: {:verify, :reservation_lost}
  defp error({:rehome_reservation_lost, _detail}, _old_pid), do: {:verify, :reservation_lost}
  defp error(:singleflight_overloaded, _old_pid), do: :untouched
  defp error({:capacity_limit, _detail}, _old_pid), do: {:displaced, :target}
  defp error(reason, _old_pid) when reason in [:max_children, :not_ready], do: {:displaced, :target}
  defp error({:erpc, reason}, _old_pid), do: erpc(reason)
  defp error(reason, _old_pid), do: {:verify, {:displaced, blame(reason)}}

  defp erpc(:noconnection), do: {:displaced, :target}
  defp erpc(:timeout), do: {:verify, {:may_come_up, :target}}
  defp erpc({:erpc, reason}), do: erpc(reason)
  defp erpc(_other), do: {:verify, {:displaced, :target}}

  # `pid`, or a tuple that begins with it, which is `{pid, meta}` today.
  defp with_pid(pid, meaning) when is_pid(pid), do: meaning.(pid)

  defp with_pid(started, meaning) when is_tuple(started) and tuple_size(started) > 0 and is_pid(elem(started, 0)),
    do: meaning.(elem(started, 0))

  defp with_pid(_unknown, _meaning), do: {:verify, {:displaced, :unknown}}

  defp blame_remote(%ArgumentError{}), do: :target
  defp blame_remote(:badarg), do: :target
  defp blame_remote({:noproc, _call}), do: :target
  defp blame_remote(_other), do: :unknown

  @doc """
  The outcome for a server that ended with `reason` when it was told to stop, if its final write is not in the
  store: `:stop_failed` if its own code raised before that write, else `:not_stored`, a failure of the store.
  """
  @spec unsaved(reason :: term()) :: :stop_failed | :not_stored
  def unsaved({reason, [{_module, _function, _arity, _location} | _stack]}), do: raised(reason)
  # The server called a process that is gone.
  def unsaved({reason, {GenServer, :call, _arguments}}), do: raised(reason)
  def unsaved(_other), do: :not_stored

  # A backend may raise the exception of its HTTP client.
  defp raised(reason), do: if(blame(reason) == :store, do: :not_stored, else: :stop_failed)

  @doc """
  Classifies the cause of an error of DurableServer. It decides what the engine does next: another target at
  once, a slower pace, or the next server. Only clear cases are distinguished.

  | blame | errors |
  |---|---|
  | `:server` | `:ignore`, a bad return value, an exception or an Erlang error with its stack, or `:noproc`, when it ended at once: its own `init` or `load_state`; an object that cannot be read or written |
  | `:target` | no connection, no such function there |
  | `:store` | no quorum, timeouts, HTTP errors, those of `DurableHandoff.Store`, of EKV and of the mirror |
  | `:unknown` | everything else |
  """
  @spec blame(term()) :: Native.blame()
  def blame(:ignore), do: :server
  def blame({:bad_return_value, _value}), do: :server
  def blame({:bad_init_return, _value}), do: :server
  # The new process had ended when DurableServer began to monitor it. Before any other end it sends an answer.
  def blame(:noproc), do: :server
  def blame({:EXIT, reason}), do: blame(reason)
  def blame({:exception, reason}), do: blame_remote(reason)
  def blame({:nodedown, _node}), do: :target
  def blame({{:nodedown, _node}, _call}), do: :target
  def blame({:erpc, _reason}), do: :target
  def blame(reason) when reason in [:noconnection, :nodedown, :draining], do: :target
  # The release lacks the module, or one of its functions.
  def blame({:undef, [_call | _stack]}), do: :target
  def blame({_reason, [{_module, _function, _arity, _location} | _stack]}), do: :server
  def blame({%{__exception__: true}, stacktrace}) when is_list(stacktrace), do: :server

  def blame(%{__struct__: Req.Response}), do: :store
  def blame(%{__exception__: true, __struct__: kind}), do: if(http?(kind), do: :store, else: :server)
  def blame(reason) when reason in [:timeout, :unavailable, :closed, :econnrefused, :max_retries_exceeded], do: :store
  # The built-in backend's answer to a read, for every status but 200 and 404.
  def blame(:bad_gateway), do: :store
  # Errors of EKV. :shutting_down comes from EKV only: DurableServer itself never returns this reason.
  def blame(reason) when reason in [:no_quorum, :quorum_timeout, :unconfirmed, :shutting_down], do: :store
  def blame(reason) when reason in [:cluster_overflow, :cluster_not_ready], do: :store

  def blame({tag, _detail}) when tag in [:consistent_read_failed, :ekv_exit, :ekv_runtime_error, :ekv_not_started],
    do: :store

  # Errors of the mirror backend, and of DurableServer from 0.1.7 on.
  def blame({tag, _detail}) when tag in [:mirror_failed, :promotion_failed, :storage_unavailable], do: :store
  # Errors of DurableHandoff.Store.
  def blame(reason) when reason in [:slow_down, :overloaded, :contended], do: :store

  def blame({kind, facts})
      when kind in [:network, :server, :unsupported, :not_a_store, :denied, :credentials, :no_bucket, :io, :protocol] and
             is_map(facts),
      do: :store

  # Only the object of this server is affected; all others can be moved.
  def blame({kind, _facts}) when kind in [:not_encodable, :unreadable, :too_large, :invalid_key], do: :server
  def blame({kind, _facts}) when kind in [:invalid_persisted_state, :unexpected_value_type], do: :server
  def blame({kind, _reason, encoded}) when kind in [:error, :throw, :exit] and is_binary(encoded), do: :server

  def blame({tag, _detail}) when tag in [:storage, :storage_error, :store, :http, :http_error, :http_status],
    do: :store

  def blame(_unknown), do: :unknown

  @doc "The same for a read of one server's object that failed: an object that cannot be read, else the store."
  @spec blame_read(term()) :: :server | :store
  def blame_read(reason), do: if(blame(reason) == :server, do: :server, else: :store)

  # The built-in backend returns the exception or the response of its HTTP client.
  defp http?(exception), do: exception |> Module.split() |> hd() |> Kernel.in(["Req", "Mint", "Finch"])
end
