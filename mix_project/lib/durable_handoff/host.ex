defmodule DurableHandoff.Host do
  # DurableServer is not a dependency of this library. All calls of it here, and under `host/`, go through
  # `apply`, so that the compiler does not look for its functions.

  @moduledoc false
  # The only module that calls DurableServer.
  #
  # Guarantees: only this module and those under it name `DurableServer`, its `LifecycleManager`, `Group` or
  # their tables, so a change in DurableServer needs a change here only. No function raises, exits or throws
  # because DurableServer is absent, busy or of a later version, except `ensure_loaded!/0` and `started!/1`,
  # whose errors say what to do. Data about other nodes is checked (`DurableHandoff.Host.View`). Every result of
  # a move becomes one of the outcomes that the engine knows (`DurableHandoff.Host.Outcome`).

  alias DurableHandoff.Clock

  # If the supervisor of the servers does not answer within this time, it is busy starting a server.
  @list_ms 100

  @type name :: atom()
  @typedoc """
  `since_ms`: when the server started on this node, in wall-clock milliseconds; nil if that is not known.
  """
  @type server :: %{key: term(), module: module(), meta: term(), pid: pid(), since_ms: nil | integer()}
  @type storage :: {backend :: term(), prefix :: String.t()}
  @type sticky_level ::
          {:env, variable :: String.t(), value :: String.t() | nil, delay_ms :: integer()} | {:any, integer()}

  @doc "Raises `ArgumentError` unless DurableServer is available."
  @spec ensure_loaded!() :: :ok
  def ensure_loaded! do
    unless Code.ensure_loaded?(DurableServer.Supervisor) and Code.ensure_loaded?(DurableServer.LifecycleManager) do
      raise ArgumentError, """
      DurableServer is not available, and durable_handoff moves its servers.
      Add {:durable_server, "~> 0.1"} to the deps in mix.exs and run `mix deps.get`; in a release, check that it is not left out.\
      """
    end

    :ok
  end

  @doc "Raises `ArgumentError` unless the supervisor `name` runs on this node."
  @spec started!(name()) :: :ok
  def started!(name) do
    unless config(name) do
      raise ArgumentError, """
      no DurableServer.Supervisor named #{inspect(name)} runs on this node.
      Start DurableHandoff.Drainer right after it, under the same supervisor: it is then stopped before it, and that is when it drains.\
      """
    end

    :ok
  end

  @doc "The modules of DurableServer."
  @spec modules() :: [module()]
  def modules, do: Application.spec(:durable_server, :modules) || []

  @doc "The child specification of the unchanged `DurableServer.Supervisor`."
  @spec child_spec(keyword()) :: Supervisor.child_spec()
  def child_spec(options), do: Supervisor.child_spec({DurableServer.Supervisor, options}, [])

  @doc """
  A process that ends together with the supervisor, which is one-for-all; nil when the supervisor does not
  run.
  """
  @spec whereis(name()) :: pid() | nil
  def whereis(name), do: Process.whereis(:"#{name}_lifecycle_manager")

  @doc "The configuration of the supervisor; nil when it does not run."
  @spec config(name()) :: map() | nil
  def config(name) do
    ask(fn -> supervisor(:__get_config__, [name]) end, nil, &is_map/1)
  end

  @doc "The longest time, in milliseconds, that DurableServer's graceful shutdown can take."
  @spec graceful_shutdown_ms(name()) :: pos_integer()
  def graceful_shutdown_ms(name), do: number(config(name), :graceful_shutdown_total_timeout_ms, 55_000)

  # Constants of DurableServer.
  @least_reservation_ms 30_000
  @reservation_margin_ms 10_000

  @doc "How long DurableServer reserves a server that it moves, in milliseconds."
  @spec reservation_ms(name()) :: pos_integer()
  def reservation_ms(name),
    do: max(@least_reservation_ms, number(config(name), :restart_start_timeout_ms, 30_000) + @reservation_margin_ms)

  @doc "How far ahead of this node's clock a heartbeat may be, in milliseconds."
  @spec future_skew_ms(name()) :: non_neg_integer()
  def future_skew_ms(name), do: number(config(name), :heartbeat_future_skew_tolerance_ms, 5_000)

  @doc """
  The maximum age, in ms, of a node's newest heartbeat for servers to be placed there. A constant of
  DurableServer.
  """
  @spec max_heartbeat_age_ms() :: pos_integer()
  def max_heartbeat_age_ms, do: 50_000

  @doc """
  The minimum age, in ms, of a node's newest heartbeat before its locks may be taken over. An option of
  DurableServer.
  """
  @spec lock_heartbeat_age_ms(name()) :: pos_integer()
  def lock_heartbeat_age_ms(name), do: number(config(name), :heartbeat_staleness_threshold_ms, 30_000)

  @doc """
  When the supervisor started, in wall-clock milliseconds. All nodes derive the same value from the
  heartbeat's `node_ref`.
  """
  @spec started_at_ms(name()) :: pos_integer() | nil
  def started_at_ms(name) do
    fn -> supervisor(:node_ref, [name]) end |> ask(nil, &is_integer/1) |> node_ref_to_ms()
  end

  @doc "Converts a node reference (wall-clock microseconds) to milliseconds; nil for an invalid one."
  @spec node_ref_to_ms(term()) :: pos_integer() | nil
  def node_ref_to_ms(ref) when is_integer(ref) and ref > 0 and ref < 0x1F_FFFF_FFFF_FFFF, do: div(ref, 1_000)
  def node_ref_to_ms(_other), do: nil

  @doc "Whether this node's heartbeat is written to the same store as the states of its servers."
  @spec heartbeats_in_storage?(name()) :: boolean()
  def heartbeats_in_storage?(name) do
    case config(name) do
      %{heartbeat_backend: heartbeats, storage_backend: states} -> heartbeats == nil or heartbeats == states
      config -> config != nil
    end
  end

  @doc "What the keys of all heartbeats in a store contain. A server whose key contains it, too, counts as one."
  @spec heartbeat_keys() :: String.t()
  def heartbeat_keys, do: "__nodes/"

  @doc "How many servers DurableServer's graceful shutdown stops at a time."
  @spec graceful_concurrency(name()) :: pos_integer()
  def graceful_concurrency(name), do: max(number(config(name), :graceful_shutdown_concurrency, 50), 1)

  @doc """
  Makes the calling process survive the end of all applications. DurableServer links its callers to processes
  of its own, which stop in a shutdown, and an application that stops kills every process that has its group
  leader.
  """
  @spec leave_application() :: :ok
  def leave_application do
    Process.flag(:trap_exit, true)
    with user when is_pid(user) <- Process.whereis(:user), do: Process.group_leader(self(), user)
    :ok
  end

  @doc "Whether the caller is one of the supervisor's servers, which would wait for itself."
  @spec calls_itself?(name()) :: boolean()
  def calls_itself?(name), do: self() in processes(name)

  @doc "The servers that run on this node. Reads no storage."
  @spec servers(name()) :: [server()]
  def servers(name) do
    for {key, {pid, %{module: module} = info}} <- members(name), is_pid(pid), node(pid) == node(), is_atom(module) do
      since_ms = with since when not is_integer(since) <- Map.get(info, :start_time), do: nil
      %{key: Map.get(info, :key, key), module: module, pid: pid, meta: Map.get(info, :user_meta), since_ms: since_ms}
    end
  end

  @doc """
  The processes of the servers that run on this node, with those that are starting, as the graceful shutdown lists them:
  for thousands that is ten times faster than `servers/1`. A supervisor that is busy for 100 ms is not waited for.
  """
  @spec processes(name()) :: [pid()]
  def processes(name) do
    case for({_id, pid, _type, modules} <- ask_dynamic(name, :which_children), server?(pid, modules), do: pid) do
      [] -> for %{pid: pid} <- servers(name), do: pid
      pids -> pids
    end
  end

  # An application may start processes of its own there. From 0.1.6 on the module of the server is named, too.
  defp server?(pid, modules), do: is_pid(pid) and is_list(modules) and DurableServer in modules

  @doc "The number of servers that run on this node, with those that are starting."
  @spec count(name()) :: non_neg_integer()
  def count(name), do: name |> processes() |> length()

  # [] when DurableServer's supervisor of servers is busy or gone. DynamicSupervisor's own functions wait without a limit.
  defp ask_dynamic(name, question),
    do: ask(fn -> GenServer.call(:"#{name}_dynamic", question, @list_ms) end, [], &is_list/1)

  @doc "This node's capacity limits with their current use, nil without limits. Keys as in a heartbeat."
  @spec capacity(name()) :: map() | nil
  def capacity(name), do: ask(fn -> supervisor(:current_capacity, [name]) end, nil, &is_map/1)

  @doc """
  The sticky placement levels of servers of `module` that run here, with this node's values: a level `:env`
  prefers nodes with the same value of its environment variable. `[]` without sticky placement.
  """
  @spec sticky_levels(name(), module()) :: [sticky_level()]
  def sticky_levels(name, module) do
    fn -> supervisor(:__get_sticky_placement_for_module__, [name, module]) end
    |> ask([], &is_list/1)
    |> Enum.flat_map(fn
      {:any, delay_ms} when is_integer(delay_ms) and delay_ms >= 0 ->
        [{:any, delay_ms}]

      {variable, delay_ms} when is_atom(variable) and is_integer(delay_ms) and delay_ms >= 0 ->
        [{:env, to_string(variable), env(variable), delay_ms}]

      _unknown ->
        []
    end)
  end

  @doc "A server's info from the store: one read."
  @spec info(name(), term()) :: {:ok, map()} | {:error, term()}
  def info(name, key) do
    case supervisor(:get_server_info, [name, key]) do
      {:ok, info} when is_map(info) -> {:ok, info}
      {:error, reason} -> {:error, reason}
      other -> {:error, other}
    end
  catch
    kind, reason -> {:error, {kind, reason}}
  end

  @doc """
  `info/2` of many servers as `{key, result}`, at most `concurrency` in parallel. Ends within about `budget_ms`: each read
  has a fifth of it, and none begins in the last fifth. Servers without an answer are missing from the result.
  """
  @spec info_each(Enumerable.t(), name(), pos_integer(), pos_integer()) :: [{term(), {:ok, map()} | {:error, term()}}]
  def info_each(keys, name, concurrency, budget_ms) do
    read_ms = max(div(budget_ms, 5), 1)
    last_us = Clock.after_ms(budget_ms - read_ms)

    keys
    |> Stream.take_while(fn _key -> Clock.now_us() < last_us end)
    |> Task.async_stream(&{&1, info(name, &1)},
      max_concurrency: concurrency,
      ordered: false,
      timeout: read_ms,
      on_timeout: :kill_task
    )
    |> Enum.flat_map(fn
      {:ok, result} -> [result]
      {:exit, _timeout} -> []
    end)
  end

  @doc "Where the server runs according to this node's registry."
  @spec lookup(name(), term()) :: {:here, pid()} | {:elsewhere, pid()} | nil
  def lookup(name, key) do
    case ask(fn -> supervisor(:lookup, [name, key]) end, nil, &is_tuple/1) do
      found when is_tuple(found) and is_pid(elem(found, 0)) -> found |> elem(0) |> place()
      _none -> nil
    end
  end

  @doc "Where a process runs, seen from this node."
  @spec place(pid()) :: {:here, pid()} | {:elsewhere, pid()}
  def place(pid), do: if(node(pid) == node(), do: {:here, pid}, else: {:elsewhere, pid})

  @doc "Calls `rehome_child/3`. `DurableHandoff.Host.Outcome` interprets the answer."
  @spec rehome_child(name(), server(), node(), timeout_ms :: pos_integer()) :: DurableHandoff.Host.Outcome.answer()
  def rehome_child(name, server, target, timeout_ms) do
    child = {server.module, key: server.key, initial_state: %{}}
    {:returned, supervisor(:rehome_child, [name, child, [target_node: target, shutdown_timeout: timeout_ms]])}
  catch
    kind, reason -> {:raised, kind, reason}
  end

  @doc """
  The storage of the supervisor, nil when it is not up. It can be used even after the end of the supervisor,
  unless the supervisor runs the storage itself.
  """
  @spec storage(name()) :: storage() | nil
  def storage(name) do
    with %{storage_backend: backend, prefix: prefix} <- config(name), do: {backend, prefix}, else: (_ -> nil)
  end

  @doc """
  How long recent writes took, in microseconds, if the backend measures that (`DurableHandoff.Store`), else
  nil.
  """
  @spec write_us(storage() | nil) :: pos_integer() | nil
  def write_us({%{adapter: module, state: state}, _prefix}) when is_atom(module),
    do: if(function_exported?(module, :write_us, 1), do: module.write_us(state))

  def write_us(_unknown), do: nil

  # This write always fails: no object has this etag, and there is no object with this key.
  @probe_key "__durable_handoff/probe"
  @probe_etag "1"
  # As large as a small state, because a full disk may still have room for a few bytes.
  @probe_body %{"probe" => String.duplicate("-", 4_096)}

  @doc """
  Whether the store refuses, as it must, an update of an object that does not exist. A store that accepts no
  writes answers with another error.
  """
  @spec refuses_stale_write?(name(), timeout_ms :: pos_integer()) :: boolean()
  def refuses_stale_write?(name, timeout_ms) do
    with {backend, prefix} <- storage(name) do
      opts = [etag: @probe_etag, max_retries: 0, timeout: timeout_ms]
      arguments = [backend, prefix <> @probe_key, @probe_body, opts]
      write = Task.async(fn -> perform(DurableServer.StorageBackend, :put_object, arguments) end)
      # A backend may ignore the time limit.
      match?(
        {:ok, {:error, refused}} when refused in [:conflict, :not_found],
        Task.yield(write, timeout_ms) || Task.shutdown(write, :brutal_kill)
      )
    else
      nil -> false
    end
  end

  @doc "The connected nodes among these names, hidden ones too."
  @spec connected([String.t()]) :: [node()]
  def connected(names) do
    names = MapSet.new(names)
    for node <- Node.list(:connected), Atom.to_string(node) in names, do: node
  end

  @doc "Whether a process lives; `:unknown` when its node cannot be asked within `timeout_ms`."
  @spec alive?(pid(), timeout_ms :: non_neg_integer()) :: boolean() | :unknown
  def alive?(pid, timeout_ms \\ 1_000)
  def alive?(pid, _timeout_ms) when node(pid) == node(), do: Process.alive?(pid)

  def alive?(pid, timeout_ms) do
    if node(pid) in Node.list(:connected),
      do: :erpc.call(node(pid), Process, :alive?, [pid], timeout_ms),
      else: :unknown
  catch
    _kind, _reason -> :unknown
  end

  @doc false
  # Calls a function for its effect. DurableServer may be absent, busy or of a later version.
  @spec perform(module(), atom(), [term()]) :: :ok | {:error, term()}
  def perform(module, function, arguments) do
    case apply(module, function, arguments) do
      {:error, reason} -> {:error, reason}
      _ok -> :ok
    end
  catch
    kind, reason -> {:error, {kind, reason}}
  end

  @doc "The stored state of a server, its `meta` included. One consistent read."
  @spec stored(storage() | nil, term()) :: {:ok, %{:meta => map(), optional(atom()) => term()}} | {:error, term()}
  def stored(nil, _key), do: {:error, :not_running}

  def stored({backend, prefix}, key) do
    case apply(DurableServer, :fetch_stored_state, [backend, %{key: key, prefix: prefix}, [consistent: true]]) do
      {:ok, %{meta: meta} = state} when is_map(meta) -> {:ok, state}
      {:error, reason} -> {:error, reason}
      other -> {:error, {:unexpected, other}}
    end
  catch
    kind, reason -> {:error, {kind, reason}}
  end

  defp members(name) do
    ask(fn -> supervisor(:__local_global_members__, [name]) end, %{}, &is_map/1)
  end

  defp env(variable), do: variable |> to_string() |> System.get_env()

  defp number(config, key, default) do
    case config do
      %{^key => value} when is_integer(value) and value >= 0 -> value
      _absent -> default
    end
  end

  defp supervisor(function, arguments), do: apply(DurableServer.Supervisor, function, arguments)

  # DurableServer's functions raise or exit while it is starting, stopping or gone. In these cases, and for an
  # answer of unknown shape, the default is returned.
  defp ask(call, default, expected?) do
    answer = call.()
    if expected?.(answer), do: answer, else: default
  catch
    _kind, _reason -> default
  end
end
