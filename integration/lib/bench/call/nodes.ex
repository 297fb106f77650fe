defmodule HandoffBench.Call.Nodes do
  @moduledoc """
  Nodes of the measurement: operating-system processes on this machine that run the same supervisor as this
  node, on this node's store.
  """

  @boot_ms 60_000
  @looks 600

  @doc """
  Makes this VM a node with a store and a supervisor, and starts `count` more with that supervisor; their
  names.
  """
  @spec start(atom(), pos_integer()) :: [node()]
  def start(supervisor, count) do
    {:ok, _net} = Node.start(:"bench_#{random()}@127.0.0.1", :longnames)
    {:ok, _store} = SimulatedStore.start_link(latency_ms: 0)
    run(self(), supervisor, node())
    nodes = for _ <- 1..count, do: boot()
    for node <- nodes, do: start_on(node, supervisor)
    await(fn -> Enum.all?(nodes, &knows_all?(&1, supervisor, [node() | nodes])) end)
    nodes
  end

  @doc "The first true value of `fun`, asked for a minute."
  @spec await((() -> term()), non_neg_integer()) :: term()
  def await(fun, looks \\ @looks) do
    cond do
      result = fun.() -> result
      looks == 0 -> raise "the condition did not hold within a minute"
      true -> Process.sleep(100) && await(fun, looks - 1)
    end
  end

  @doc false
  @spec run(pid(), atom(), node()) :: term()
  def run(parent, supervisor, store) do
    # Marking draining and the like is logged on every node and not needed here.
    Logger.configure(level: :error)

    {:ok, _sup} =
      DurableHandoff.Supervisor.start_link(
        name: supervisor,
        prefix: "bench/",
        backend: {SimulatedStore, node: store},
        handoff_on_shutdown: true
      )

    if parent != self() do
      Process.monitor(parent)
      send(parent, {:running, node()})

      receive do
        {:DOWN, _ref, :process, ^parent, _reason} -> System.halt()
      end
    end
  end

  # The control connection is not the distribution, so a node that loses this one ends with it all the same.
  defp boot do
    {:ok, _peer, node} =
      :peer.start_link(%{
        name: String.to_charlist("bench_#{random()}"),
        host: ~c"127.0.0.1",
        longnames: true,
        connection: :standard_io,
        args: [~c"-setcookie", Atom.to_charlist(Node.get_cookie())] ++ Enum.flat_map(:code.get_path(), &[~c"-pa", &1]),
        wait_boot: @boot_ms
      })

    for app <- [:logger, :durable_server, :durable_handoff] do
      {:ok, _apps} = :erpc.call(node, Application, :ensure_all_started, [app])
    end

    node
  end

  defp start_on(node, supervisor) do
    Node.spawn(node, __MODULE__, :run, [self(), supervisor, node()])

    receive do
      {:running, ^node} -> :ok
    after
      @boot_ms -> raise "#{node} did not start"
    end
  end

  defp knows_all?(node, supervisor, nodes) do
    known = :erpc.call(node, DurableServer.Supervisor, :get_cluster_nodes, [supervisor])
    Enum.all?(nodes, &is_map_key(known, Atom.to_string(&1)))
  end

  defp random, do: :rand.uniform(0xFFFFFFFF)
end
