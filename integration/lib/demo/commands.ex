defmodule HandoffDemo.Commands do
  @moduledoc """
  The commands of the driver. A command that fails is answered with its reason, as text.
  """

  alias DurableServer.Supervisor, as: Durable
  alias HandoffDemo.{Clients, Config, Leftovers, Newer, Recorder, Server}

  @starters 32
  @readers 50
  @read_ms 5_000
  # The time limit for starting many servers at once on a slow store.
  @start_ms 60_000
  @some 20

  @doc "Runs a command."
  @spec run(atom(), [term()]) :: {:ok, term()} | {:error, String.t()}
  def run(name, arguments) do
    # A task that fails must not end this process before it has answered.
    Process.flag(:trap_exit, true)
    {:ok, command(name, arguments)}
  rescue
    error -> {:error, Exception.format(:error, error, __STACKTRACE__)}
  catch
    kind, reason -> {:error, Exception.format(kind, reason, __STACKTRACE__)}
  end

  defp command(:connect, [names]) do
    for name <- names, node = String.to_atom(name), node != node() do
      true = Node.connect(node)
    end

    :ok
  end

  # The nodes whose heartbeats this node has, with their draining state and the time of the heartbeat.
  defp command(:view, []) do
    for {_pid, heartbeat} <- Group.members(Config.supervisor(), "__heartbeat"),
        meta = heartbeat.heartbeat_meta || %{},
        do: {heartbeat.node, meta["draining"] == true, heartbeat.timestamp}
  end

  # The Rust nodes that this node knows.
  defp command(:executors, []),
    do: for({name, _pid, _release} <- DurableHandoff.RustNodes.all(), do: Atom.to_string(name))

  defp command(:start_servers, [first, step, last, bytes, synced, start_ms, newer?]) do
    kind = %{bytes: bytes, synced: synced, start_ms: start_ms, newer?: newer?}

    length(each(first..(last - 1)//step, &start_here(&1, kind), @starters))
  end

  defp command(:missing, [servers]) do
    missing = for index <- 0..(servers - 1), Durable.lookup(Config.supervisor(), Server.key(index)) == nil, do: index
    {length(missing), Enum.take(missing, @some)}
  end

  defp command(:start_clients, [clients, servers, every_ms, sync_one_in, kind]) do
    job = %{kind: kind, servers: servers, every_ms: every_ms, sync_one_in: sync_one_in, stored: &peeked_counter/1}
    Clients.start(clients, job)
  end

  defp command(:stop_clients, []), do: Clients.stop()

  defp command(:counters, [servers]), do: each(0..(servers - 1), &counter/1, @readers)

  # Returns how many servers have not stored the increment.
  defp command(:increment_all, [servers]) do
    Enum.count(each(0..(servers - 1), &increment/1, @readers), fn {_counter, stored?} -> not stored? end)
  end

  # Returns how many servers would start again with at least `counter`.
  defp command(:stored, [servers, counter]) do
    Enum.count(each(0..(servers - 1), &stored_now/1, @readers), &(&1 >= counter))
  end

  defp command(:configure_store, [latency_ms, slots, error_rate, outage]) do
    outage = with {:node, name} <- outage, do: {:node, String.to_atom(name)}
    SimulatedStore.configure(node(), latency_ms: latency_ms, slots: slots, error_rate: error_rate, outage: outage)
  end

  defp command(:reset_store_stats, []), do: SimulatedStore.reset_stats(node())
  defp command(:store_stats, []), do: for({name, count} <- SimulatedStore.stats(node()), do: {to_string(name), count})
  defp command(:flush, []), do: Recorder.flush()
  defp command(:running, []), do: Recorder.running()
  defp command(:ours, []), do: Leftovers.ours()
  defp command(:reservations, []), do: Leftovers.reservations()
  defp command(:pause_store, []), do: SimulatedStore.pause(node())
  defp command(:resume_store, []), do: SimulatedStore.resume(node())

  defp command(:restart, []), do: :init.restart()
  defp command(:stop, []), do: :init.stop()

  defp command(:grow, [index, bytes]) do
    {pid, _meta} = Durable.lookup(Config.supervisor(), Server.key(index))
    :ok = GenServer.call(pid, {:grow, bytes}, @start_ms)
  end

  # Starts a drain as a pre-stop hook does, and does not wait for its end.
  defp command(:drain, []) do
    {:ok, _pid} = Task.start(fn -> DurableHandoff.drain(Config.supervisor()) end)
    :ok
  end

  # Nodes with different cookies cannot connect in either direction, so the connection stays down. Each has its
  # own: when both are told and had the same, the next message would connect them again.
  defp command(:cut, [names]) do
    for name <- names, node = String.to_atom(name) do
      true = :erlang.set_cookie(node, :"cut by #{node()}")
      _was_connected = :erlang.disconnect_node(node)
    end

    :ok
  end

  defp command(:heal, [names]) do
    for name <- names, node = String.to_atom(name), do: true = :erlang.set_cookie(node, Node.get_cookie())
    :ok
  end

  # The results of `fun` for all indices, in any order. Exits when one fails.
  defp each(indices, fun, at_once) do
    indices
    |> Task.async_stream(fun, max_concurrency: at_once, timeout: :infinity, ordered: false)
    |> Enum.map(fn
      {:ok, result} -> result
      {:exit, reason} -> exit(reason)
    end)
  end

  defp start_here(index, kind) do
    module = if kind.newer?, do: Newer.module(index), else: Server
    child = {module, key: Server.key(index), initial_state: Server.initial_state(index, kind)}
    {:ok, {_pid, _meta}} = Durable.start_child(Config.supervisor(), child, local_only: true, timeout: @start_ms)
  end

  # The server's own answer with its node, and whether the rest of its state is unchanged. For a server that
  # does not answer, the stored state.
  defp counter(index) do
    {pid, _meta} = Durable.lookup(Config.supervisor(), Server.key(index))
    {counter, intact} = GenServer.call(pid, :report, @read_ms)
    {index, counter, Atom.to_string(node(pid)), intact}
  rescue
    MatchError -> {index, stored_counter(index), nil, true}
  catch
    :exit, _no_answer -> {index, stored_counter(index), nil, true}
  end

  defp increment(index) do
    {pid, _meta} = Durable.lookup(Config.supervisor(), Server.key(index))
    GenServer.call(pid, {:increment, false}, @read_ms)
  end

  # Reads without a request to the simulated store, whose latency is part of the measurement.
  defp stored_now(index) do
    case Config.from_env!().store do
      {:simulated, _node} -> peeked_counter(index)
      {:url, _url} -> stored_counter(index)
    end
  end

  defp peeked_counter(index) do
    %{store: {:simulated, node}} = config = Config.from_env!()

    case SimulatedStore.peek(node, Config.supervisor_options(config)[:prefix] <> Server.key(index)) do
      %{body: %{state: %{"counter" => counter}}} -> counter
      nil -> 0
    end
  end

  defp stored_counter(index) do
    config = Durable.__get_config__(Config.supervisor())
    place = %{key: Server.key(index), prefix: config.prefix}

    case DurableServer.fetch_stored_state(config.storage_backend, place, consistent: true) do
      {:ok, %{state: %{"counter" => counter}}} -> counter
      {:error, :not_found} -> 0
    end
  end
end
