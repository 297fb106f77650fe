defmodule HandoffDemo.Commands do
  @moduledoc """
  What the driver can tell a node to do. A command that fails is an answer, too: its reason, as text.
  """

  alias DurableServer.Supervisor, as: Durable
  alias HandoffDemo.{Clients, Config, Leftovers, Recorder, Server}

  @starters 32
  @readers 50
  @read_ms 5_000
  @some 20

  @doc "Runs a command."
  @spec run(atom(), [term()]) :: {:ok, term()} | {:error, String.t()}
  def run(name, arguments) do
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

  # The nodes whose heartbeats this node has, whether they take servers, and when they said so.
  defp command(:view, []) do
    for {_pid, heartbeat} <- Group.members(Config.supervisor(), "__heartbeat"),
        meta = heartbeat.heartbeat_meta || %{},
        do: {heartbeat.node, meta["draining"] == true, heartbeat.timestamp}
  end

  # The Rust nodes that this node's drains are offered.
  defp command(:executors, []),
    do: for({name, _pid, _release} <- DurableHandoff.Agent.nodes(), do: Atom.to_string(name))

  defp command(:start_servers, [first, step, last, bytes, synced, start_ms]) do
    kind = %{bytes: bytes, synced: synced, start_ms: start_ms}

    first..(last - 1)//step
    |> Task.async_stream(&start_here(&1, kind), max_concurrency: @starters, timeout: :infinity, ordered: false)
    |> Enum.count()
  end

  defp command(:missing, [servers]) do
    missing = for index <- 0..(servers - 1), Durable.lookup(Config.supervisor(), Server.key(index)) == nil, do: index
    {length(missing), Enum.take(missing, @some)}
  end

  defp command(:start_clients, [clients, servers, every_ms]), do: Clients.start(clients, servers, every_ms)
  defp command(:stop_clients, []), do: Clients.stop()

  defp command(:counters, [servers]) do
    0..(servers - 1)
    |> Task.async_stream(&counter/1, max_concurrency: @readers, timeout: :infinity, ordered: false)
    |> Enum.map(fn {:ok, counter} -> counter end)
  end

  defp command(:configure_store, [latency_ms, slots, error_rate]),
    do: SimulatedStore.configure(node(), latency_ms: latency_ms, slots: slots, error_rate: error_rate)

  defp command(:reset_store_stats, []), do: SimulatedStore.reset_stats(node())
  defp command(:store_stats, []), do: for({name, count} <- SimulatedStore.stats(node()), do: {to_string(name), count})
  defp command(:flush, []), do: Recorder.flush()
  defp command(:running, []), do: Recorder.running()
  defp command(:ours, []), do: Leftovers.ours()
  defp command(:reservations, []), do: Leftovers.reservations()
  defp command(:pause_store, []), do: SimulatedStore.pause(node())
  defp command(:resume_store, []), do: SimulatedStore.resume(node())

  # As a pre-stop hook does, without waiting for the end.
  defp command(:drain, []) do
    {:ok, _pid} = Task.start(fn -> DurableHandoff.drain(Config.supervisor()) end)
    :ok
  end

  # Nodes with another cookie can neither connect nor be connected to: the connection stays down.
  defp command(:cut, [names]) do
    for name <- names, node = String.to_atom(name) do
      true = :erlang.set_cookie(node, :"another cookie")
      _was_connected = :erlang.disconnect_node(node)
    end

    :ok
  end

  defp command(:heal, [names]) do
    for name <- names, node = String.to_atom(name), do: true = :erlang.set_cookie(node, Node.get_cookie())
    :ok
  end

  defp start_here(index, kind) do
    child = {Server, key: Server.key(index), initial_state: Server.initial_state(index, kind)}
    {:ok, {_pid, _meta}} = Durable.start_child(Config.supervisor(), child, local_only: true)
  end

  # Its own answer, its node, and whether the rest of its state is what it was; of a server that does not answer, what is stored.
  defp counter(index) do
    {pid, _meta} = Durable.lookup(Config.supervisor(), Server.key(index))
    {counter, intact} = GenServer.call(pid, :report, @read_ms)
    {index, counter, Atom.to_string(node(pid)), intact}
  rescue
    MatchError -> {index, stored_counter(index), nil, true}
  catch
    :exit, _no_answer -> {index, stored_counter(index), nil, true}
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
