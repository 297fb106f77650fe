defmodule DurableHandoff.Move do
  @moduledoc false
  # Moves one server on request: `DurableHandoff.move/3`.
  #
  # A move is a drain of one server (`DurableHandoff.Drain`), with the same placement, outcomes and hints to
  # callers. It runs on the node of the server; other nodes forward the request. If the target fails after the
  # server was stopped, the server is started again at once where DurableServer places it. A server that ended
  # by itself or was deleted is not started again.

  alias DurableHandoff.{Apart, Client, Clock, Deadline, Drain, Host, Log, Options, Schema, Status}
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
  @ask_ms 500
  # A move without delays, such as a slow `terminate/2`, takes less.
  @owner_ms 1_000

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
        hop(supervisor, key, %{options | timeout_ms: options.timeout_ms || handoff.attempt_timeout_ms}, @hops)
    end
  end

  defp hop(supervisor, key, options, hops) do
    case owner(supervisor, key) do
      nil ->
        if Host.whereis(supervisor), do: unknown_key(supervisor, key), else: {:error, :supervisor_not_running}

      {:here, pid} when pid == self() ->
        {:error, :calling_self}

      {:here, pid} ->
        here(supervisor, key, pid, options)

      {:elsewhere, pid} ->
        case there(node(pid), supervisor, key, options) do
          {:error, {:unknown_key, _here_again}} when hops > 1 -> hop(supervisor, key, options, hops - 1)
          result -> result
        end
    end
  end

  defp owner(supervisor, key),
    do: Host.lookup(supervisor, key) || if(Host.whereis(supervisor), do: await(supervisor, key))

  # While a server moves, and for a moment afterwards, this node's registry has no owner of it.
  defp await(supervisor, key) do
    case Client.await(supervisor, key, timeout: @owner_ms) do
      {:ok, pid} -> Host.place(pid)
      {:error, _no_owner} -> nil
    end
  end

  defp there(node, supervisor, key, options) do
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
      {:here, pid} -> here(supervisor, key, pid, options)
      _gone -> {:error, {:unknown_key, %{given: key, did_you_mean: nil}}}
    end
  end

  defp here(supervisor, key, pid, options) do
    own = Atom.to_string(node())

    with %{options: handoff, state: state} <- Status.read(supervisor),
         false <- state == :draining or Status.stopping?(supervisor),
         %{} = server <- Enum.find(Host.servers(supervisor), &(&1.key == key and &1.pid == pid)),
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

  # In a process of its own: a caller that gives up must not leave the server stopped.
  defp move(supervisor, server, handoff, options) do
    case Apart.run(fn -> move_here(supervisor, server, handoff, options) end) do
      {:ok, result} -> result
      {:died, reason} -> ended({:error, reason}, supervisor, server, options.to)
    end
  end

  defp move_here(supervisor, server, handoff, %{to: to, timeout_ms: timeout_ms}) do
    deadline = Deadline.drain(Clock.now_us(), timeout_ms)
    handoff = Options.override!(handoff, timeout_ms: timeout_ms)
    {pid, monitor} = Drain.start(supervisor, handoff, deadline, {:move, server, to}, nil, nil)

    result =
      receive do
        {:drained, ^pid, result} -> result
        {:DOWN, ^monitor, :process, ^pid, reason} -> {:error, {:drain_failed, reason}}
      end

    Process.demonitor(monitor, [:flush])
    ended(result, supervisor, server, to)
  end

  defp ended(result, supervisor, server, to),
    do: result |> outcome(supervisor, server, to) |> announce(supervisor, server)

  defp outcome({:ok, %{moved: 1} = report}, _supervisor, _server, to) do
    [{target, 1}] = Map.to_list(report.targets)
    # The node is connected, so its name exists as an atom.
    runs_on = String.to_existing_atom(target)

    # Another request may have moved it elsewhere at the same time.
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
    counts = Count.ask(supervisor, [server.module], Host.connected([to]), @ask_ms)

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

  defp announce({:ok, moved} = result, supervisor, server) do
    text = "moved #{inspect(server.key)} to #{moved.to} on request, gap #{round(moved.gap_ms)} ms"
    Log.info(:moved, supervisor, text, key: server.key, to: moved.to)
    result
  end

  defp announce({:error, {:not_moved, why}} = result, supervisor, server) do
    text = "could not move #{inspect(server.key)} on request: #{why.reason}#{why.error && " (#{why.error})"}"
    Log.warning(:not_moved, supervisor, text, key: server.key, reason: why.reason, runs_on: why.runs_on)
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
