defmodule DurableHandoff.Doctor.Supervised do
  @moduledoc false
  # The checks of `DurableHandoff.Doctor` for one supervisor on this node.

  alias DurableHandoff.{Budget, Host, Log, Options, Status, Store}
  alias DurableHandoff.Drain.Peers

  @ask_ms 3_000
  @write_ms 10_000

  @spec findings(Host.name()) :: [map()]
  def findings(name) do
    found =
      case {Host.whereis(name), Status.read(name)} do
        {nil, _status} ->
          [
            {:supervisors, :problem, "no DurableServer.Supervisor of this name runs here",
             "check the name, and that it started"}
          ]

        {_pid, nil} ->
          text = "it runs without handoff"

          [{:options, :problem, text, "set handoff_on_shutdown: true (DurableHandoff.Supervisor)"}] ++
            cluster(name) ++ [store(name)]

        {_pid, status} ->
          [options(status.options), budget(name, status.options)] ++ mark(status) ++ cluster(name) ++ [store(name)]
      end

    for {check, state, text, todo} <- found,
        do: %{check: check, supervisor: name, state: state, text: text, todo: todo}
  end

  defp options(options) do
    defaults = Options.new!(true)

    changed =
      for {name, value} <- Map.from_struct(options),
          name != :generation,
          value != Map.fetch!(defaults, name),
          do: "#{name}: #{inspect(value)}"

    text = if changed == [], do: "all at their defaults", else: Enum.join(changed, ", ")
    generation = if options.generation, do: "; release #{options.generation}", else: ""
    {:options, :ok, text <> generation, nil}
  end

  defp budget(name, options) do
    graceful_ms = Host.graceful_shutdown_ms(name)
    before_ms = before_ms(name)

    sum = "a shutdown may take " <> Budget.sum(options, graceful_ms, before_ms)

    cond do
      warning = Budget.warning(options, graceful_ms, before_ms) ->
        {:budget, :problem, warning,
         "raise what the platform waits and shutdown_budget_ms with it, or lower timeout_ms"}

      options.shutdown_budget_ms == nil ->
        {:budget, :warning, sum <> ", and no shutdown_budget_ms is set",
         "set it to what the platform waits: terminationGracePeriodSeconds less preStop, docker stop -t, TimeoutStopSec; " <>
           "on Fly.io kill_timeout, with kill_signal = \"SIGTERM\""}

      true ->
        {:budget, :ok, sum <> ", within shutdown_budget_ms #{options.shutdown_budget_ms}", nil}
    end
  end

  defp before_ms(name) do
    with pid when is_pid(pid) <- Process.whereis(:"#{name}_handoff"),
         {:dictionary, dictionary} <- Process.info(pid, :dictionary),
         do: Budget.before_ms(pid, Keyword.get(dictionary, :"$ancestors", [])),
         else: (_gone -> 0)
  end

  defp mark(%{cordoned: true}) do
    [{:mark, :warning, "this node is cordoned and takes no servers", "DurableHandoff.uncordon/1, when it should again"}]
  end

  defp mark(%{marked: true}) do
    [
      {:mark, :warning, "this node is marked draining and takes no servers",
       "restart the node, if it is not about to stop"}
    ]
  end

  defp mark(_status), do: [{:mark, :ok, "this node takes servers", nil}]

  defp cluster(name) do
    view = Host.View.build(name, [], [])
    {reached, lost} = {Peers.in_reach(view), Peers.out_of_reach(view)}
    [own_heartbeat(view), targets(reached, lost)] ++ out_of_reach(lost) ++ silent(name, reached)
  end

  defp own_heartbeat(view) do
    own = Enum.find(view.nodes, &(&1.name == Atom.to_string(node())))
    oldest_ms = Host.max_heartbeat_age_ms()

    cond do
      own == nil ->
        {:cluster, :warning, "this node's own heartbeat is not known yet",
         "wait for one heartbeat interval; if it stays so, the store takes no writes"}

      view.now_ms - own.stamp_ms > oldest_ms ->
        {:cluster, :problem,
         "this node's newest heartbeat is #{view.now_ms - own.stamp_ms} ms old: no node sends servers here",
         "look for errors of DurableServer's heartbeat in the log, and at the store"}

      true ->
        {:cluster, :ok, "this node's heartbeat is #{max(view.now_ms - own.stamp_ms, 0)} ms old", nil}
    end
  end

  defp targets([], []) do
    {:cluster, :warning, "no other node could take servers: a drain would move none",
     "start another node with the same store and prefix, and check that its clock is right"}
  end

  defp targets([], _lost),
    do: {:cluster, :problem, "no connected node could take servers: a drain would move none", nil}

  defp targets(names, _lost), do: {:cluster, :ok, "#{length(names)} nodes could take servers: #{Log.names(names)}", nil}

  defp out_of_reach([]), do: []

  defp out_of_reach(names) do
    text = "#{length(names)} nodes are healthy by their heartbeats but not connected: #{Log.names(names)}"

    todo =
      "compare cookie, node names (basename) and connect_all on both sides, and open epmd's and the distribution ports"

    [{:cluster, :problem, text, todo}]
  end

  # Nodes without this library are valid targets, but cannot be asked which modules they lack.
  defp silent(name, reached) do
    answers = Host.Count.ask(name, [], Host.connected(reached), @ask_ms)

    absent(Host.Count.absent(answers)) ++ elsewhere(name, answers) ++ no_answer(reached -- Map.keys(answers))
  end

  # Not necessarily a problem: nodes may use different addresses of the same store.
  defp elsewhere(name, answers) do
    own = name |> Host.storage() |> Host.StorageIdentity.of()

    case Host.Count.elsewhere(answers, own) do
      [] ->
        []

      names ->
        text =
          "another store is configured on #{Log.names(names)}: unless it is the same one, no server moved there starts"

        [{:cluster, :warning, text, "compare backend, bucket, path and endpoint of the supervisor on these nodes"}]
    end
  end

  defp absent([]), do: []

  defp absent(names) do
    text = "no supervisor of this name and prefix runs on #{Log.names(names)}, where heartbeats come from"
    todo = "wait, if they are starting; else give the supervisor the same name and prefix on all nodes"
    [{:cluster, :problem, text, todo}]
  end

  defp no_answer([]), do: []

  defp no_answer(names) do
    text = "#{length(names)} nodes do not answer within #{@ask_ms} ms: #{Log.names(names)}"
    [{:cluster, :warning, text, "check that they run this version of durable_handoff and are not overloaded"}]
  end

  defp store(name) do
    case Host.storage(name) do
      {%{state: %Store{} = store}, _prefix} -> with :ok <- proof(Store.ensure_ready(store)), do: refuses(name)
      nil -> {:store, :problem, "its store is not known: the supervisor is starting or stopping", "try again"}
      _other_backend -> refuses(name)
    end
  end

  # The store has passed the race within the last hour. Its disk may have become full since.
  defp proof(:ok), do: :ok

  defp proof({:error, reason}) do
    {:store, :problem, "it does not answer as it must: #{inspect(reason)}",
     "see the errors of DurableHandoff.Store; a store without conditional writes cannot keep one owner for each server"}
  end

  defp refuses(name) do
    if Host.refuses_stale_write?(name, @write_ms) do
      {:store, :ok, "it answers, and refuses a write over an object that is not there", nil}
    else
      {:store, :problem, "a conditional write that must be refused was not refused within #{@write_ms} ms",
       "check that the store answers, that it has room, that this node may write, and that it supports conditional writes"}
    end
  end
end
