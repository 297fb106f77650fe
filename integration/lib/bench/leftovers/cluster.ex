defmodule HandoffBench.Leftovers.Cluster do
  @moduledoc false
  # The nodes of one run: operating-system processes on this machine. They end when this process ends.

  @compile {:no_warn_undefined, [DurableServer.Supervisor]}

  alias HandoffBench.Leftovers.{Collector, Server}

  @supervisor HandoffBench.Durable
  @boot_ms 60_000
  @at_a_time 50

  @type member :: %{name: node(), peer: pid(), pid: String.t()}

  @spec supervisor() :: atom()
  def supervisor, do: @supervisor

  @spec start_distribution() :: :ok
  def start_distribution do
    {_output, 0} = System.cmd("epmd", ["-daemon"])
    {:ok, _pid} = Node.start(:"#{unique("bench")}@127.0.0.1", :longnames)
    :ok
  end

  @doc "Starts connected nodes that have each other's heartbeats. The first is the source."
  @spec start(pos_integer(), keyword()) :: [member()]
  def start(count, handoff) do
    members = for _ <- 1..count, do: boot()
    for %{name: a} <- members, %{name: b} <- members, a != b, do: true = :erpc.call(a, Node, :connect, [b])
    prefix = unique("bench") <> "/"

    for %{name: name} <- members do
      options = [
        name: @supervisor,
        prefix: prefix,
        backend: {SimulatedStore, node: node()},
        handoff_on_shutdown: handoff
      ]

      :ok = :erpc.call(name, __MODULE__, :launch, [options])
    end

    names = for member <- members, do: Atom.to_string(member.name)
    wait(fn -> Enum.all?(members, &(names -- known(&1.name) == [])) end)
    members
  end

  @doc false
  # Starts the supervisor in an application of its own: on SIGTERM a VM stops only applications in order.
  def launch(options) do
    properties = [
      description: ~c"a node of a measurement",
      vsn: ~c"0",
      modules: [],
      registered: [],
      applications: [:kernel, :stdlib, :elixir, :logger],
      mod: {HandoffBench.Leftovers.App, options}
    ]

    :ok = :application.load({:application, :handoff_bench, properties})
    for app <- [:durable_server, :durable_handoff, :handoff_integration], do: load(app)
    :ok = Application.start(:handoff_bench, :permanent)
    :ok = DurableServer.Supervisor.wait_until_ready(@supervisor, timeout: @boot_ms)
  end

  @doc "Starts the servers on a node. Each stores a counter of 1."
  @spec start_servers(member(), [String.t()]) :: :ok
  def start_servers(%{name: name}, keys), do: :erpc.call(name, __MODULE__, :start_here, [keys, node()], :infinity)

  @doc false
  def start_here(keys, collector) do
    start = fn key ->
      child = {Server, key: key, initial_state: %{key: key, collector: collector, count: 0}}
      {:ok, {pid, _meta}} = DurableServer.Supervisor.start_child(@supervisor, child, local_only: true)
      1 = GenServer.call(pid, :add_sync, 30_000)
    end

    keys |> Task.async_stream(start, max_concurrency: @at_a_time, timeout: :infinity) |> Stream.run()
  end

  @doc "Makes a node report the end of its drain to the collector. It recognises the drain's closing log line."
  @spec tell_the_end(member()) :: :ok
  def tell_the_end(%{name: name}) do
    for id <- :erpc.call(name, :logger, :get_handler_ids, []),
        do: :ok = :erpc.call(name, :logger, :set_handler_config, [id, :level, :none])

    :ok = :erpc.call(name, :logger, :add_handler, [:ended, __MODULE__, %{config: %{collector: node()}}])
    :ok = :erpc.call(name, :logger, :set_primary_config, [:level, :info])
  end

  @doc false
  # Called by :logger for each log event of the node.
  def log(event, %{config: %{collector: collector}}) do
    text = event |> :logger_formatter.format(%{single_line: false, template: [:msg]}) |> IO.chardata_to_string()
    if text =~ "[durable_handoff]" and text =~ ": moved ", do: Collector.tell(collector, :ended, "")
  end

  @doc "How many servers run on the nodes."
  @spec count([member()]) :: non_neg_integer()
  def count(members), do: members |> Enum.map(&length(running(&1.name))) |> Enum.sum()

  @doc "The number of servers that do not run on exactly one node with the counter that was stored."
  @spec check([member()], [String.t()]) :: non_neg_integer()
  def check(members, keys) do
    owners = for %{name: name} <- members, %{key: key, pid: pid} <- running(name), do: {key, pid}

    owners = Enum.group_by(owners, &elem(&1, 0), &elem(&1, 1))

    Enum.count(keys, fn key ->
      case owners do
        %{^key => [pid]} -> GenServer.call(pid, :get, 30_000) != 1
        %{} -> true
      end
    end)
  end

  @doc "Sends a signal and waits until the node is gone."
  @spec signal(member(), String.t()) :: :ok
  def signal(%{name: name, pid: pid}, signal) do
    true = Node.monitor(name, true)
    {_output, 0} = System.cmd("kill", ["-" <> signal, pid])

    receive do
      {:nodedown, ^name} -> :ok
    after
      180_000 -> raise "#{name} still runs three minutes after SIG#{signal}"
    end
  end

  # SIGKILL, because a drain of these nodes would only take time.
  @spec stop([member()]) :: :ok
  def stop(members), do: Enum.each(members, &signal(&1, "KILL"))

  defp running(name) do
    for %{pid: pid} = server <- :erpc.call(name, DurableHandoff.Host, :servers, [@supervisor], 30_000),
        :erpc.call(name, Process, :alive?, [pid]),
        do: server
  end

  defp known(name), do: name |> :erpc.call(DurableServer.Supervisor, :get_cluster_nodes, [@supervisor]) |> Map.keys()

  defp boot do
    quiet = ~w(+sbwt none +sbwtdcpu none +sbwtdio none -kernel prevent_overlapping_partitions false)
    args = quiet ++ ["-setcookie", Atom.to_string(Node.get_cookie())] ++ Enum.flat_map(:code.get_path(), &["-pa", &1])

    {:ok, peer, name} =
      :peer.start(%{
        name: String.to_atom(unique("node")),
        host: ~c"127.0.0.1",
        longnames: true,
        connection: {{127, 0, 0, 1}, 0},
        args: Enum.map(args, &to_charlist/1),
        wait_boot: @boot_ms
      })

    true = :peer.call(peer, :net_kernel, :connect_node, [node()])
    {:ok, _apps} = :erpc.call(name, Application, :ensure_all_started, [:logger])
    :ok = :erpc.call(name, Logger, :configure, [[level: :none]])
    %{name: name, peer: peer, pid: :erpc.call(name, System, :pid, [])}
  end

  defp load(app) do
    _loaded = Application.load(app)
    :code.ensure_modules_loaded(Application.spec(app, :modules) || [])
  end

  defp unique(prefix), do: "#{prefix}_#{System.unique_integer([:positive])}_#{:rand.uniform(0xFFFFFFFF)}"

  defp wait(condition, looks \\ 600) do
    cond do
      condition.() -> :ok
      looks == 0 -> raise "the nodes do not know one another after a minute"
      true -> Process.sleep(100) && wait(condition, looks - 1)
    end
  end
end

defmodule HandoffBench.Leftovers.App do
  @moduledoc false
  use Application

  @impl true
  def start(_type, options),
    do: Supervisor.start_link([{DurableHandoff.Supervisor, options}], strategy: :one_for_one)
end
