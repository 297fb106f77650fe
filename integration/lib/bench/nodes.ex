defmodule HandoffBench.Nodes do
  @moduledoc "The nodes of a bench: VMs on this machine that end with this VM."

  @compile {:no_warn_undefined, [DurableServer.Supervisor]}

  @boot_ms 60_000
  @starters 16

  @doc "Makes this VM a node."
  @spec start_distribution() :: :ok
  def start_distribution do
    {_output, 0} = System.cmd("epmd", ["-daemon"])
    {:ok, _pid} = Node.start(:"bench_#{suffix()}@127.0.0.1", :longnames)
    Node.set_cookie(:"bench_#{suffix()}")
    :ok
  end

  @doc "Boots this many nodes that are connected to each other and run this library: their control processes and names."
  @spec start(pos_integer()) :: {[pid()], [node()]}
  def start(count) do
    {peers, nodes} = Enum.unzip(for _ <- 1..count, do: start_peer())
    for node <- nodes, other <- nodes, do: :erpc.call(node, :net_kernel, :connect_node, [other])
    {peers, nodes}
  end

  @doc """
  Starts a supervisor with `options` on a node, under a permanent process, because a supervisor ends with the
  process that starts it.
  """
  @spec start_supervisor(node(), keyword()) :: holder :: pid()
  def start_supervisor(node, options) do
    parent = self()

    holder =
      Node.spawn(node, fn ->
        Process.flag(:trap_exit, true)
        {:ok, sup} = Supervisor.start_link([{DurableHandoff.Supervisor, options}], strategy: :one_for_one)
        send(parent, {:started, self()})

        receive do
          {:stop, from} ->
            # Kills everything instead of stopping it, so that no drain starts.
            Process.exit(sup, :kill)
            send(from, {:stopped, self()})
        end
      end)

    receive do
      {:started, ^holder} -> holder
    after
      @boot_ms -> raise "the supervisor did not start on #{node}"
    end
  end

  @doc "Ends a supervisor with all that it runs, at once."
  @spec stop_supervisor(holder :: pid()) :: :ok
  def stop_supervisor(holder) do
    send(holder, {:stop, self()})

    receive do
      {:stopped, ^holder} -> :ok
    end
  end

  @doc "Waits until `node` has the heartbeats of this many nodes of the supervisor `sup`."
  @spec await_heartbeats(node(), atom(), pos_integer()) :: true
  def await_heartbeats(node, sup, count),
    do: await(fn -> length(:erpc.call(node, DurableHandoff.Host.View, :build, [sup, [], []]).nodes) == count end)

  @doc "Starts servers of `module` on `node`, with the keys s1 to s`count`. Returns their pids."
  @spec start_servers(node(), atom(), module(), pos_integer()) :: [pid()]
  def start_servers(node, sup, module, count) do
    1..count
    |> Task.async_stream(
      fn index ->
        child = {module, key: "s#{index}", initial_state: %{}}
        arguments = [sup, child, [local_only: true]]
        {:ok, {pid, _meta}} = :erpc.call(node, DurableServer.Supervisor, :start_child, arguments, @boot_ms)
        pid
      end,
      max_concurrency: @starters,
      timeout: @boot_ms
    )
    |> Enum.map(fn {:ok, pid} -> pid end)
  end

  @doc "The first true value of `condition`, within a minute."
  @spec await((() -> term()), non_neg_integer()) :: term()
  def await(condition, looks \\ 600) do
    cond do
      value = condition.() -> value
      looks == 0 -> raise "not so within a minute"
      true -> Process.sleep(100) && await(condition, looks - 1)
    end
  end

  @doc "A unique part of a name."
  @spec suffix() :: String.t()
  def suffix, do: Base.encode16(:crypto.strong_rand_bytes(5), case: :lower)

  defp start_peer do
    paths = Enum.flat_map(:code.get_path(), &[~c"-pa", &1])
    cookie = Node.get_cookie() |> Atom.to_charlist()

    {:ok, peer, node} =
      :peer.start(%{
        name: :"bench_#{suffix()}",
        host: ~c"127.0.0.1",
        longnames: true,
        connection: :standard_io,
        args: [~c"-setcookie", cookie | paths],
        wait_boot: @boot_ms
      })

    true = :peer.call(peer, :net_kernel, :connect_node, [node()])
    for app <- [:logger, :durable_handoff], do: {:ok, _apps} = :erpc.call(node, Application, :ensure_all_started, [app])
    # The nodes log a lot when they end after each drain, and nothing of interest.
    :ok = :erpc.call(node, Logger, :configure, [[level: :none]])
    {peer, node}
  end
end
