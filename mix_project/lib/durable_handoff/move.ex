defmodule DurableHandoff.Move do
  @moduledoc false
  # Moves one server on request: `DurableHandoff.move/3`.
  #
  # A move is a drain of one server (`DurableHandoff.Drain`), with the same placement, outcomes and hints to
  # callers. It runs on the node of the server; other nodes forward the request. If the target fails after the
  # server was stopped, the server is started again at once where DurableServer places it. A server that ended
  # by itself or was deleted is not started again.

  alias DurableHandoff.{Apart, Client, Clock, Deadline, Drain, Host, Log, Options, Schema, Status}
  alias DurableHandoff.Drain.{Attempt, Peers}
  alias DurableHandoff.Host.{Count, Registry, View}

  require Schema

  @type moved :: %{from: node(), to: node(), gap_ms: number(), attempts: non_neg_integer()}
  @type error ::
          :draining
          | :calling_self
          | :no_drainer
          | :supervisor_not_running
          | Status.unknown()
          | {:unknown_key | :unknown_node, %{given: term(), did_you_mean: nil | term()}}
          | {:owner_failed, %{node: node(), reason: term()}}
          | {:not_moved, %{reason: atom(), to: nil | String.t(), error: nil | String.t(), runs_on: nil | node()}}

  # Another caller may move the server at the same time, so it may have left its node when that node is asked.
  @hops 3
  # The time for starting a server again.
  @start_ms 10_000
  # The time for that and for asking nodes, besides the move itself.
  @margin_ms @start_ms + 5_000
  # The most names to compare; each takes microseconds.
  @most_compared 10_000
  # For the owner, and for a read of the store. A move without delays, such as a slow `terminate/2`, takes less.
  @owner_ms 1_000
  # The pause before it is tried again to begin while another move of the server runs, and between two lookups.
  @again_ms 20

  @schema [
    to: [
      type: {:optional, {:when, &__MODULE__.target?/1, "the name of a node"}},
      default: nil,
      example: :"app@10.0.0.7",
      doc: "the target; `nil`: the best node, by the placement of a drain"
    ],
    timeout_ms: [
      type: {:optional, {:integer, 1, 86_400_000}},
      default: nil,
      doc: "time for the whole move; `nil`: `attempt_timeout_ms`"
    ]
  ]

  @doc "The options, as a list for the documentation."
  @spec docs() :: String.t()
  def docs, do: Schema.docs(@schema)

  @doc false
  def target?(value), do: (is_binary(value) and value != "") or Schema.is_name(value)

  @doc "Moves the server `key`, wherever in the cluster it runs. Raises `ArgumentError` when an option is wrong."
  @spec run(Host.name(), term(), keyword()) :: {:ok, moved()} | {:error, error()}
  def run(supervisor, key, options) do
    Schema.server_key!(key, "DurableHandoff.move: the second argument")
    Schema.check!(@schema, options, "options")
    options = Map.new(Keyword.merge(Schema.defaults(@schema), options))
    options = %{options | to: options.to && to_string(options.to)}

    case Status.read(supervisor) do
      nil ->
        Status.absent(supervisor)

      %{options: handoff} ->
        options = %{options | timeout_ms: options.timeout_ms || handoff.attempt_timeout_ms}
        hop(supervisor, key, Map.put(options, :reconnect, handoff.reconnect), @hops)
    end
  end

  defp hop(supervisor, key, options, hops) do
    case owner(supervisor, key) do
      nil ->
        if Host.whereis(supervisor), do: unknown_key(supervisor, key), else: {:error, :supervisor_not_running}

      {:here, pid} when pid == self() ->
        {:error, :calling_self}

      {place, pid} ->
        until_us = Clock.after_ms(options.timeout_ms)

        result = if place == :here, do: here(supervisor, key, options), else: there(node(pid), supervisor, key, options)

        case {result, Clock.until_ms(until_us)} do
          {{:error, {:unknown_key, _has_moved}}, left_ms} when hops > 1 and left_ms > 0 ->
            await_change(supervisor, key, pid, min(Clock.after_ms(@owner_ms), until_us))
            hop(supervisor, key, %{options | timeout_ms: max(Clock.until_ms(until_us), 1)}, hops - 1)

          {result, _left_ms} ->
            result
        end
    end
  end

  defp owner(supervisor, key) do
    # A node that connects meanwhile may be missing in the registry for longer than this waits.
    connected = [node() | Node.list(:connected)]

    Host.lookup(supervisor, key) ||
      if(Host.whereis(supervisor), do: await(supervisor, key) || stored(supervisor, key, connected))
  end

  # For a moment after a move this node's registry may still have the process that has ended.
  defp await_change(supervisor, key, pid, until_us) do
    if Host.lookup(supervisor, key) == {:elsewhere, pid} and Clock.until_ms(until_us) > 0 do
      Process.sleep(@again_ms)
      await_change(supervisor, key, pid, until_us)
    end
  end

  # While a server moves, and for a moment afterwards, this node's registry has no owner of it.
  defp await(supervisor, key) do
    case Client.await(supervisor, key, timeout: @owner_ms) do
      {:ok, pid} -> Host.place(pid)
      {:error, _no_owner} -> nil
    end
  end

  # The registry has no processes of nodes that are not connected to this one.
  defp stored(supervisor, key, connected) do
    read = fn -> Host.stored(Host.storage(supervisor), key) end

    with {:ok, {:ok, %{meta: %{status: :running, pid: pid}}}} when is_pid(pid) <- Apart.run(read, @owner_ms),
         false <- node(pid) in connected do
      {:elsewhere, pid}
    else
      _no_owner -> nil
    end
  end

  # Connects to the node.
  defp there(node, supervisor, key, options) do
    if not (options.reconnect or node in Node.list(:connected)), do: :erlang.error({:erpc, :noconnection})

    case :erpc.call(node, __MODULE__, :as_owner, [supervisor, key, options], options.timeout_ms + @margin_ms) do
      # Only the plain supervisor runs there.
      {:error, :no_drainer} -> {:error, {:owner_failed, %{node: node, reason: :no_drainer}}}
      result -> result
    end
  catch
    # The release has no such function, the connection was lost, or the time limit passed.
    _kind, reason -> {:error, {:owner_failed, %{node: node, reason: reason}}}
  end

  @doc "Moves the server if it runs on this node. For other nodes."
  @spec as_owner(Host.name(), term(), map()) :: {:ok, moved()} | {:error, error()}
  def as_owner(supervisor, key, options) do
    case Host.lookup(supervisor, key) do
      {:here, _pid} -> here(supervisor, key, options)
      _gone -> {:error, {:unknown_key, %{given: key, did_you_mean: nil}}}
    end
  end

  # In a process of its own: a caller that gives up must not leave the server stopped.
  defp here(supervisor, key, options) do
    until_us = Clock.after_ms(options.timeout_ms)
    work = &in_its_turn(supervisor, key, %{options | timeout_ms: &1})

    case Apart.run(fn -> in_turn(Attempt.turn(supervisor, key, self()), until_us, work) end) do
      {:ok, :no_turn} -> not_moved(:deadline, "another move of it has not ended", supervisor, key, options.to)
      {:ok, result} -> result
      # Its drain ends with it, and starts the server again.
      {:died, reason} -> not_moved(:failed, inspect(reason, limit: 10), supervisor, key, options.to)
    end
  end

  defp not_moved(reason, error, supervisor, key, to) do
    runs_on = with {_place, pid} <- Host.lookup(supervisor, key), do: node(pid)
    announce({:error, {:not_moved, %{reason: reason, to: to, error: error, runs_on: runs_on}}}, supervisor, key)
  end

  # Two moves of one server at the same time, or a move and a rebalance, would share its reservation: one that gives up
  # clears it, and starts the server again, while the other one starts it on its target. `work` gets the milliseconds that
  # are left. The lock ends when this process and those of the move's attempts have ended.
  defp in_turn(lock, until_us, work) do
    left_ms = Clock.until_ms(until_us)

    cond do
      :global.set_lock(lock, [node()], 0) ->
        result = work.(max(left_ms, 1))
        :global.del_lock(lock, [node()])
        result

      left_ms == 0 ->
        :no_turn

      true ->
        Process.sleep(min(@again_ms, left_ms))
        in_turn(lock, until_us, work)
    end
  end

  # The server may have moved, or a drain may have begun, while this move waited for its turn.
  defp in_its_turn(supervisor, key, options) do
    own = Atom.to_string(node())

    with %{options: handoff, state: state} <- Status.read(supervisor),
         false <- state == :draining or Status.stopping?(supervisor),
         %{} = server <- Enum.find(Host.servers(supervisor), &(&1.key == key)),
         :ok <- known_node(supervisor, options.to) do
      if options.to == own,
        do: {:ok, %{from: node(), to: node(), gap_ms: 0, attempts: 0}},
        else: move(supervisor, server, %{handoff | wait_for_target_ms: 0}, options)
    else
      nil -> if Status.read(supervisor), do: unknown_key(supervisor, key), else: {:error, :no_drainer}
      true -> {:error, :draining}
      error -> error
    end
  end

  defp move(supervisor, server, handoff, %{to: to, timeout_ms: timeout_ms}) do
    deadline = Deadline.drain(Clock.now_us(), timeout_ms)
    handoff = Options.override!(handoff, timeout_ms: timeout_ms)
    {pid, monitor} = Drain.start(supervisor, handoff, deadline, {:move, server, to}, nil, nil)

    result =
      receive do
        {:drained, ^pid, result, _late} -> result
        {:DOWN, ^monitor, :process, ^pid, reason} -> {:error, {:drain_failed, reason}}
      end

    Process.demonitor(monitor, [:flush])
    result |> outcome(supervisor, server, to) |> announce(supervisor, server.key)
  end

  defp outcome({:ok, %{moved: 1} = report}, _supervisor, _server, to) do
    [{target, 1}] = Map.to_list(report.targets)
    # The node is connected, so its name exists as an atom.
    runs_on = String.to_existing_atom(target)

    # A drain or rebalance may have moved it elsewhere at the same time.
    if to in [nil, target],
      do: {:ok, %{from: node(), to: runs_on, gap_ms: report.gap_ms.max, attempts: report.attempts}},
      else: {:error, {:not_moved, %{reason: :lost_race, to: to, error: nil, runs_on: runs_on}}}
  end

  defp outcome({:ok, report}, supervisor, server, to) do
    [{reason, 1}] = Map.to_list(report.left)
    error = with [first | _] <- report.first_errors, do: first.error, else: ([] -> nil)
    runs_on = if reason == :gone, do: nil, else: runs_on(supervisor, server)
    reason = explain(reason, supervisor, server, to)
    {:error, {:not_moved, %{reason: reason, to: to, error: error, runs_on: runs_on}}}
  end

  defp outcome({:error, reason}, supervisor, server, to) do
    detail = %{reason: :failed, to: to, error: inspect(reason, limit: 10), runs_on: runs_on(supervisor, server)}
    {:error, {:not_moved, detail}}
  end

  # The engine reports only that there was no target. This finds out why the given node is not one.
  defp explain(:no_target, supervisor, server, to) when to != nil do
    until_us = Clock.after_ms(Peers.silent_ms())
    {counts, _late} = Peers.ask(supervisor, [server.module], Host.connected([to]), until_us)

    case Enum.find(View.build(supervisor, [server.module], [], counts).nodes, &(&1.name == to)) do
      %{connected: false} -> :not_connected
      %{draining: true} -> if to in Count.absent(counts), do: :no_target, else: :draining
      %{missing: [_ | _]} -> :module_missing
      _healthy_or_gone -> :no_target
    end
  end

  defp explain(reason, _supervisor, _server, _to), do: reason

  # A stopped server that could not start on its target is started where DurableServer places it, unless it has been
  # deleted.
  defp runs_on(supervisor, server) do
    with false <- Process.alive?(server.pid),
         {:ok, pid} <- Registry.start(supervisor, server.key, {server.module, :stored}, @start_ms) do
      node(pid)
    else
      true -> node()
      _later_or_never -> nil
    end
  end

  defp announce({:ok, moved} = result, supervisor, key) do
    text = "moved #{inspect(key)} to #{moved.to} on request, gap #{round(moved.gap_ms)} ms"
    Log.info(:moved, supervisor, text, key: key, to: moved.to)
    result
  end

  defp announce({:error, {:not_moved, why}} = result, supervisor, key) do
    text = "could not move #{inspect(key)} on request: #{why.reason}#{why.error && " (#{why.error})"}"
    Log.warning(:not_moved, supervisor, text, key: key, reason: why.reason, runs_on: why.runs_on)
    result
  end

  defp known_node(_supervisor, nil), do: :ok

  defp known_node(supervisor, to) do
    names = Enum.map(View.build(supervisor, [], []).nodes, & &1.name)

    if to in names,
      do: :ok,
      else: {:error, {:unknown_node, %{given: to, did_you_mean: Schema.nearest(to, names)}}}
  end

  defp unknown_key(supervisor, key) do
    keys = for %{key: key} when is_binary(key) <- Host.servers(supervisor), do: key
    near = Schema.nearest(key, Enum.take(keys, @most_compared))
    {:error, {:unknown_key, %{given: key, did_you_mean: near}}}
  end
end
