defmodule DurableHandoff.Drain.Peers do
  @moduledoc false
  # Asks the other nodes while a drain runs, and connects to nodes out of reach. A process of its own.
  #
  # Once a second, and whenever a node comes or goes, it asks the connected nodes
  # (`DurableHandoff.Host.Count`) whether they go down, and whether they have the modules of the drain. The
  # drain gets `{DurableHandoff.Drain.Peers, nodes, answers, silent}` with the nodes that could be asked.
  #
  # A connected node that has not answered for two seconds is *silent*: it is suspended, or its network is
  # lost. DurableServer waits up to 8 s for each start there. So no server is sent there until it answers
  # again.
  #
  # With `reconnect: true` it also connects to *nodes out of reach*: healthy and not draining by their
  # heartbeats in the store, but not connected. A cluster manager that disconnects a node as soon as it
  # terminates makes all of them such nodes in the middle of a drain.
  #
  # Guarantees: the drain never waits for it; one attempt to connect to a node at a time, and at most 10 at
  # once; at most 1,000 names in a drain become atoms. It ends with the drain.

  alias DurableHandoff.{Clock, Deadline, Host, Log}

  @look_ms 1_000
  @silent_ms 2_000
  @most_connecting 10
  @most_names 1_000
  @ask_ms 500

  @doc "Starts for the calling drain, which is to end by `deadline`."
  @spec start(snapshot :: map(), reconnect? :: boolean(), Deadline.t()) :: pid()
  def start(%{supervisor: supervisor, modules: modules, view: view, late: late}, reconnect?, deadline) do
    drain = self()

    :proc_lib.spawn(fn ->
      Process.monitor(drain)

      state = %{
        late: Map.new(late, &{&1, late_ms()}),
        silent: [],
        drain: drain,
        supervisor: supervisor,
        modules: modules,
        view: view,
        ask_ms: Deadline.ask_ms(deadline, Clock.now_us()),
        reconnect?: reconnect?,
        connecting: %{},
        tried: %{}
      }

      # The snapshot has just asked the nodes. Those that did not answer in time are asked again at once.
      state |> connect(view) |> await(Clock.after_ms(if(late == [], do: @look_ms, else: 0)))
    end)
  end

  @doc "Asks the nodes now, because a node came or went."
  @spec look_now(pid()) :: :ok
  def look_now(pid) do
    send(pid, :look)
    :ok
  end

  @doc "A drain starts without the nodes that have not answered for this long."
  @spec late_ms() :: pos_integer()
  def late_ms, do: @ask_ms

  @doc "No server is sent to a node that has not answered for this long."
  @spec silent_ms() :: pos_integer()
  def silent_ms, do: @silent_ms

  @doc "The names of the nodes out of reach in `view`."
  @spec out_of_reach(Host.View.t()) :: [String.t()]
  def out_of_reach(view) do
    names = for node <- healthy(view), not node.connected, do: node.name
    # Silent ones, and those that have not been asked yet.
    names -- Enum.map(Host.connected(names), &Atom.to_string/1)
  end

  @doc "The names of the nodes in `view` that could take servers."
  @spec in_reach(Host.View.t()) :: [String.t()]
  def in_reach(view), do: for(node <- healthy(view), node.connected, do: node.name)

  @doc """
  The names of the nodes that could take servers, without those that answer that no such supervisor runs there, or that
  it takes none. Takes at most #{@ask_ms} ms.
  """
  @spec that_may_take_servers(Host.name()) :: [String.t()]
  def that_may_take_servers(supervisor) do
    names = in_reach(Host.View.build(supervisor, [], []))
    names -- Host.Count.stopping(Host.Count.ask(supervisor, [], Host.connected(names), late_ms()))
  end

  @doc """
  `DurableHandoff.Host.Count.ask_each/4`, and again of late nodes that are still connected, until `until_us`. Each question
  takes at most `ask_ms`.
  """
  @spec ask(Host.name(), [module()], [node()], pos_integer(), Clock.instant()) :: {Host.Count.t(), late :: [String.t()]}
  def ask(supervisor, modules, nodes, ask_ms \\ late_ms(), until_us) do
    {counts, late} = Host.Count.ask_each(supervisor, modules, nodes, ask_ms)
    again = Host.connected(late)

    if again == [] or Clock.until_ms(until_us) == 0 do
      {counts, late}
    else
      {more, still_late} = ask(supervisor, modules, again, ask_ms, until_us)
      {Map.merge(counts, more), (late -- Enum.map(again, &Atom.to_string/1)) ++ still_late}
    end
  end

  @doc """
  Adds to `view` the nodes that only an `earlier` view has, as not connected: the registry forgets a node when
  its connection is lost.
  """
  @spec with_lost(Host.View.t(), Host.View.t()) :: Host.View.t()
  def with_lost(view, earlier) do
    known = MapSet.new(view.nodes, & &1.name)
    lost = for node <- earlier.nodes, node.name not in known, do: %{node | connected: false}
    %{view | nodes: view.nodes ++ lost}
  end

  @doc """
  Advice about nodes out of reach, for log lines and plans. nil when there are none.

      iex> DurableHandoff.Drain.Peers.advice(["app-2@h"])
      "healthy by their heartbeats but not connected: app-2@h; compare cookie, node names (basename) and connect_all on both sides"
  """
  @spec advice([String.t()]) :: nil | String.t()
  def advice([]), do: nil

  def advice(names) do
    "healthy by their heartbeats but not connected: #{Log.names(names)}; " <>
      "compare cookie, node names (basename) and connect_all on both sides"
  end

  @doc """
  Which of `names` to connect to now, with those in `busy` under way and the attempts at each name so far in `tried`.
  Names with the fewest attempts come first: nodes that cannot be reached must not block the others.

      iex> DurableHandoff.Drain.Peers.to_try(["a@h", "b@h", "c@h"], ["b@h"], %{"a@h" => 1, "b@h" => 1})
      ["c@h", "a@h"]
  """
  @spec to_try([String.t()], busy :: [String.t()], tried :: %{String.t() => pos_integer()}) :: [String.t()]
  def to_try(names, busy, tried) do
    {known, new} = Enum.split_with(names -- busy, &is_map_key(tried, &1))

    new
    |> Enum.take(@most_names - map_size(tried))
    |> Enum.concat(Enum.sort_by(known, &tried[&1]))
    |> Enum.take(@most_connecting - length(busy))
  end

  defp healthy(view) do
    oldest_ms = view.now_ms - Host.max_heartbeat_age_ms()
    own = Atom.to_string(node())
    Enum.filter(view.nodes, &(&1.stamp_ms >= oldest_ms and not &1.draining and &1.name != own))
  end

  defp look(state) do
    forget_requests()
    view = state.supervisor |> Host.View.build([], []) |> with_lost(state.view)
    nodes = Host.connected(Enum.map(view.nodes, & &1.name))
    {answers, late} = Host.Count.ask_each(state.supervisor, state.modules, nodes, state.ask_ms)
    # Counts requests, not time: after a pause of this VM a request is late even if the node has answered.
    late = Map.new(late, &{&1, Map.get(state.late, &1, 0) + state.ask_ms})
    silent = for {name, late_ms} <- late, late_ms >= @silent_ms, do: name
    warn(state, silent -- state.silent)
    send(state.drain, {__MODULE__, Enum.map(nodes, &Atom.to_string/1) -- Map.keys(late), answers, silent})
    # A late node is asked again at once, until it answers or is silent.
    pause_ms = if map_size(late) > length(silent), do: 0, else: @look_ms
    %{state | view: view, late: late, silent: silent} |> connect(view) |> await(Clock.after_ms(pause_ms))
  end

  defp warn(_state, []), do: :ok

  defp warn(%{supervisor: supervisor}, silent) do
    text =
      "connected, but without an answer for #{@silent_ms} ms: #{Log.names(silent)}; no server moves there until one comes"

    Log.warning(:nodes_silent, supervisor, text, nodes: silent)
  end

  # One poll serves all waiting requests.
  defp forget_requests do
    receive do
      :look -> forget_requests()
    after
      0 -> :ok
    end
  end

  defp await(%{drain: drain, connecting: connecting} = state, at_us) do
    receive do
      :look -> look(state)
      {:DOWN, _monitor, :process, ^drain, _reason} -> :ok
      {:DOWN, monitor, :process, _pid, _reason} -> await(%{state | connecting: Map.delete(connecting, monitor)}, at_us)
    after
      Clock.until_ms(at_us) -> look(state)
    end
  end

  defp connect(%{reconnect?: false} = state, _view), do: state

  defp connect(state, view) do
    view
    |> out_of_reach()
    |> to_try(Map.values(state.connecting), state.tried)
    |> Enum.reduce(state, fn name, state ->
      {_pid, monitor} = spawn_monitor(fn -> Node.connect(String.to_atom(name)) end)
      connecting = Map.put(state.connecting, monitor, name)
      %{state | connecting: connecting, tried: Map.update(state.tried, name, 1, &(&1 + 1))}
    end)
  end
end
