defmodule DurableHandoff.Leftovers.Handover do
  @moduledoc """
  Hands what a drain could not move to the receivers on other nodes.

  Guarantees:

    * Takes no longer than it is given: what is not done by then goes on by itself, and counts as not handed on.
    * Only to nodes whose receiver (`DurableHandoff.Leftovers`) answers: one without this library, of a version before it had
      receivers, with `start_leftovers: false`, or draining itself, is not chosen.
    * Who gets which server is the engine's plan, as in a drain: limits, sticky placement, releases and load count. What finds no
      place is left to the existing shutdown.
    * At most #{DurableHandoff.Leftovers.Share.most_servers()} servers, those of the highest priority.

  Each receiver gets its share, and so do the next two in alphabetical order, in case it goes down.
  """

  require Logger

  alias DurableHandoff.{Clock, Leftovers, Native, Options, Telemetry}
  alias DurableHandoff.Drain.Snapshot
  alias DurableHandoff.Leftovers.Share

  @left_over [:deadline, :failures, :capacity, :no_target, :attempts_exhausted, :cancelled]
  @in_line 3
  # The process goes on for so long when the drain no longer waits for it: the graceful shutdown takes a while, too.
  @patience_us 5_000_000

  @doc """
  Hands on what `results` (of the engine: one byte a server) says was left. `stays?`: this node goes on running its servers, so only
  those that an attempt has stopped need a new place. Returns how many were accepted within `budget_ms`.
  """
  @spec run(Snapshot.t(), binary(), Options.t(), stays? :: boolean(), budget_ms :: integer()) :: non_neg_integer()
  def run(_snapshot, _results, %{start_leftovers: false}, _stays?, _budget_ms), do: 0

  def run(snapshot, results, options, stays?, budget_ms) do
    case left_over(snapshot, results, stays?) do
      [] -> 0
      left_over -> hand_on(snapshot, left_over, options, max(budget_ms, 1))
    end
  end

  # The numbers of the servers, the important ones first.
  defp left_over(snapshot, results, stays?) do
    codes = for {reason, code} <- Native.reasons(), reason in @left_over, do: code

    results
    |> :binary.bin_to_list()
    |> Enum.zip(snapshot.entries)
    |> Enum.with_index()
    |> Enum.filter(fn {{code, _entry}, id} ->
      code in codes and not (stays? and Process.alive?(Snapshot.server(snapshot, id).pid))
    end)
    |> Enum.sort_by(fn {{_code, {_module, _sticky, priority}}, _id} -> -priority end)
    |> Enum.take(Share.most_servers())
    |> Enum.map(fn {{_code, entry}, id} -> {id, entry} end)
  end

  # A process of its own that no stopping application takes with it: a slow receiver must not hold up the shutdown, nor
  # must the end of the drain cut off what is on its way.
  defp hand_on(snapshot, left_over, options, budget_ms) do
    {pid, monitor} =
      :proc_lib.spawn_opt(
        fn ->
          with user when is_pid(user) <- Process.whereis(:user), do: Process.group_leader(self(), user)
          exit({:handed_on, offer(snapshot, left_over, options)})
        end,
        [:monitor]
      )

    receive do
      {:DOWN, ^monitor, :process, ^pid, {:handed_on, count}} ->
        count

      {:DOWN, ^monitor, :process, ^pid, reason} ->
        log(snapshot, :error, "servers that were not moved could not be handed on: #{inspect(reason, limit: 20)}")
        0
    after
      budget_ms ->
        Process.demonitor(monitor, [:flush])
        0
    end
  end

  defp offer(snapshot, left_over, options) do
    deadline_us = Clock.now_us() + @patience_us
    view = Snapshot.look(snapshot).view
    ready = snapshot |> candidates(view) |> ask(snapshot.supervisor, deadline_us)
    shares = shares(snapshot, left_over, options, view, ready)
    accepted = send_all(shares, deadline_us)
    announce(snapshot, length(left_over), accepted)
    accepted |> Enum.map(fn {_node, count} -> count end) |> Enum.sum()
  end

  defp candidates(snapshot, view) do
    for %{name: name, connected: true, draining: false} <- view.nodes, name != snapshot.source.name, do: name
  end

  # `[{name, pid}]` of those who answer, in alphabetical order.
  defp ask(names, supervisor, deadline_us) do
    receiver = Leftovers.name(supervisor)

    names
    |> Enum.sort()
    # A connected node's name is an atom here.
    |> Enum.map(&{&1, :gen_server.send_request({receiver, String.to_existing_atom(&1)}, :ready?)})
    |> Enum.flat_map(fn {name, request} ->
      case answer(request, deadline_us) do
        {:ready, pid} when is_pid(pid) -> [{name, pid}]
        _not_there_or_draining -> []
      end
    end)
  end

  defp shares(_snapshot, _left_over, _options, _view, []), do: []

  defp shares(snapshot, left_over, options, view, ready) do
    names = Enum.map(ready, fn {name, _pid} -> name end)
    config = Snapshot.engine_config(snapshot, options, options.timeout_ms)
    view = %{view | nodes: Enum.filter(view.nodes, &(&1.name in names))}
    {:ok, plan} = Native.plan(config, Enum.map(left_over, fn {_id, entry} -> entry end), view)
    targets = List.to_tuple(plan.targets)
    assigned = for <<index::signed-little-32 <- plan.assignment>>, do: index

    left_over
    |> Enum.zip(assigned)
    |> Enum.filter(fn {_server, index} -> index >= 0 end)
    |> Enum.group_by(fn {_server, index} -> elem(targets, index) end, fn {{id, _entry}, _index} -> id end)
    |> Enum.map(fn {name, ids} ->
      servers = for id <- ids, %{key: key, module: module} = Snapshot.server(snapshot, id), do: {key, module}
      line = ready |> line(name) |> Enum.map(fn {_name, pid} -> pid end)
      {name, Share.message(make_ref(), node(), servers, line)}
    end)
  end

  # The receiver itself and those after it, as on a ring.
  defp line(ready, name) do
    {before, from} = Enum.split_while(ready, fn {other, _pid} -> other != name end)
    Enum.take(from ++ before, @in_line)
  end

  # `[{name, accepted}]`. An owner that refuses leaves its line before any other node waits for it.
  defp send_all(shares, deadline_us) do
    shares
    |> Enum.map(fn {name, message} ->
      {name, message, Enum.map(message.line, &{&1, :gen_server.send_request(&1, {:take, message})})}
    end)
    |> Enum.map(fn {name, message, requests} ->
      answers = for {pid, request} <- requests, do: {pid, answer(request, deadline_us)}
      {accepted, refused} = Enum.split_with(answers, &match?({_pid, {:ok, _count}}, &1))
      for {pid, {:error, _reason}} <- refused, {other, _ok} <- accepted, do: Leftovers.tell(other, {:stood_down, pid})
      {name, if(accepted == [], do: 0, else: length(message.servers))}
    end)
  end

  defp answer(request, deadline_us) do
    left_ms = max(div(deadline_us - Clock.now_us(), 1_000), 0)

    case :gen_server.receive_response(request, left_ms) do
      {:reply, answer} -> answer
      :timeout -> :timeout
      {:error, _gone} -> :gone
    end
  end

  defp announce(snapshot, left, accepted) do
    count = accepted |> Enum.map(fn {_name, count} -> count end) |> Enum.sum()
    targets = for {name, count} <- accepted, count > 0, into: %{}, do: {name, count}
    to = targets |> Enum.sort() |> Enum.map_join(", ", fn {name, count} -> "#{name} #{count}" end)
    where = if count > 0, do: " to #{to}; they start there once they are stopped here", else: ""

    log(
      snapshot,
      if(count == left, do: :info, else: :warning),
      "handed on #{count} of #{left} servers that were not moved#{where}"
    )

    Telemetry.leftovers_handed_on(snapshot.supervisor, left, targets)
  end

  defp log(snapshot, level, text), do: Logger.log(level, "[durable_handoff] #{inspect(snapshot.supervisor)}: #{text}")
end
