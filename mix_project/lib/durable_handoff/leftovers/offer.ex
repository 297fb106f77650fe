defmodule DurableHandoff.Leftovers.Offer do
  @moduledoc false
  # Offers what a drain could not move to the receivers on other nodes.
  #
  # Guarantees:
  #
  #   * Takes no longer than the given time. An offer that is not answered by then counts as not accepted, but
  #     its process continues to wait for the answer.
  #   * Only nodes whose receiver (`DurableHandoff.Leftovers`) answers get offers. Nodes without this library,
  #     with `start_leftovers: false`, or that drain themselves get none.
  #   * The engine plans which node gets which server, as in a drain: by limits, sticky placement, releases
  #     and load. Servers without a target are left to DurableServer's graceful shutdown.
  #   * At most 100,000 servers, those of the highest priority.
  #   * Receivers let go of what runs on a node that was uncordoned meanwhile.
  #
  # Each receiver gets its offer, and so do the next two in alphabetical order, in case it goes down.

  alias DurableHandoff.{Clock, Host, Native, Options, Plan, Status}
  alias DurableHandoff.Drain.{Peers, Snapshot}
  alias DurableHandoff.Leftovers.{Adoption, Announcement, Message}

  @left_over [:deadline, :failures, :capacity, :no_target, :attempts_exhausted, :cancelled]
  # These run elsewhere, or nowhere. A silent target may have claimed the server and never complete its start
  # (`DurableHandoff.Host.Rehome.left_at_silent_target/2`). One whose final write failed has found a target or none.
  @unsure [:lost_race, :state_not_stored]
  @in_line 3
  # How long the process continues after the drain has stopped waiting for it. It has this time because the
  # graceful shutdown also takes a while.
  @patience_ms 5_000

  @doc """
  Offers the servers that were not moved according to the engine's `results` (one byte per server), and for whose number
  and server `offer?` returns true. Returns how many servers were accepted within `budget_ms`.
  """
  @spec run(Snapshot.t(), binary(), Options.t(), (non_neg_integer(), Host.server() -> boolean()), integer()) ::
          non_neg_integer()
  def run(_snapshot, _results, %{start_leftovers: false}, _offer?, _budget_ms), do: 0

  def run(snapshot, results, options, offer?, budget_ms) do
    case left_over(snapshot, results, offer?) do
      [] -> 0
      left_over -> snapshot |> only(left_over) |> offer_aside(options, max(budget_ms, 1))
    end
  end

  # A process gets a copy of what it is started with.
  defp only(snapshot, left_over) do
    {ids, entries} = Enum.unzip(left_over)
    servers = for id <- ids, do: Snapshot.server(snapshot, id)
    %{snapshot | servers: List.to_tuple(servers), entries: entries, excluded: [], lately: []}
  end

  # The numbers and entries of the servers, the highest priority first.
  defp left_over(snapshot, results, offer?) do
    reasons = Map.new(Native.reasons())
    codes = reasons |> Map.take(@left_over) |> Map.values()
    unsure = reasons |> Map.take(@unsure) |> Map.values()

    results
    |> :binary.bin_to_list()
    |> Enum.zip(snapshot.entries)
    |> Enum.with_index()
    |> Enum.filter(fn {{code, _entry}, id} ->
      server = Snapshot.server(snapshot, id)
      left? = code in codes or (code in unsure and nowhere?(snapshot, server))
      left? and offer?.(id, server)
    end)
    |> Enum.sort_by(fn {{_code, {_module, _sticky, priority}}, _id} -> -priority end)
    |> Enum.take(Adoption.most_servers())
    |> Enum.map(fn {{_code, entry}, id} -> {id, entry} end)
  end

  # A node that has not been asked, or is silent, counts as none.
  defp nowhere?(%{supervisor: supervisor, asked: asked}, server) do
    case Host.lookup(supervisor, server.key) do
      {:elsewhere, pid} -> Atom.to_string(node(pid)) not in asked
      here_or_nowhere -> here_or_nowhere == nil
    end
  end

  # The offer runs in a process of its own: a slow receiver must not delay the shutdown, and the end of the
  # drain must not cancel offers in flight.
  defp offer_aside(%{supervisor: supervisor} = snapshot, options, budget_ms) do
    marked? = Status.marked?(supervisor)

    {pid, monitor} =
      :proc_lib.spawn_opt(
        fn ->
          Host.leave_application()
          accepted = offer(snapshot, options)
          # The node was uncordoned before the receivers had the offer.
          if marked? and goes_on?(supervisor), do: Message.resumed(supervisor)
          # OTP reports most other exit reasons as a crash.
          exit({:shutdown, {:accepted, accepted}})
        end,
        [:monitor]
      )

    receive do
      {:DOWN, ^monitor, :process, ^pid, {:shutdown, {:accepted, count}}} ->
        count

      {:DOWN, ^monitor, :process, ^pid, reason} ->
        Announcement.not_offered(snapshot.supervisor, reason)
        0
    after
      budget_ms ->
        Process.demonitor(monitor, [:flush])
        0
    end
  end

  defp goes_on?(supervisor), do: Host.whereis(supervisor) != nil and not Status.marked?(supervisor)

  defp offer(snapshot, options) do
    deadline_us = Clock.after_ms(@patience_ms)
    view = Snapshot.refresh(snapshot).view
    ready = snapshot |> targets(view) |> ask(snapshot.supervisor, deadline_us)

    by_target = assign(snapshot, options, view, ready)
    accepted = snapshot |> offers(by_target, ready) |> send_all(deadline_us) |> Map.reject(&match?({_, 0}, &1))

    Announcement.offered(snapshot.supervisor, Snapshot.size(snapshot), accepted)
    accepted |> Map.values() |> Enum.sum()
  end

  defp targets(snapshot, view) do
    for %{name: name, connected: true, draining: false} <- view.nodes, name != snapshot.source.name, do: name
  end

  # The receivers that answer, as `[{name, pid}]` in alphabetical order.
  defp ask(names, supervisor, deadline_us) do
    process = Message.name(supervisor)

    requests =
      for name <- names, reduce: :gen_server.reqids_new() do
        # The name of a connected node exists as an atom.
        asked -> :gen_server.reqids_add(Message.ask({process, String.to_existing_atom(name)}, :ready?), name, asked)
      end

    Enum.sort(ready(requests, [], Clock.after_ms(Peers.late_ms()), deadline_us))
  end

  # A node that does not answer keeps the others from their offers only for as long as it may delay a drain.
  defp ready(requests, ready, late_us, deadline_us) do
    until_us = if ready == [], do: deadline_us, else: late_us

    case :gen_server.receive_response(requests, Clock.until_ms(until_us), true) do
      {{:reply, {:ready, pid}}, name, requests} when is_pid(pid) ->
        ready(requests, [{name, pid} | ready], late_us, deadline_us)

      {_not_there_or_draining, _name, requests} ->
        ready(requests, ready, late_us, deadline_us)

      timeout_or_no_request when is_atom(timeout_or_no_request) ->
        ready
    end
  end

  # The numbers of the servers by the name of their target.
  defp assign(_snapshot, _options, _view, []), do: %{}

  defp assign(snapshot, options, view, ready) do
    names = Enum.map(ready, fn {name, _pid} -> name end)
    config = Snapshot.engine_config(snapshot, options, options.timeout_ms)
    view = %{view | nodes: Enum.filter(view.nodes, &(&1.name in names))}
    {:ok, assigned} = Plan.assign(config, snapshot.entries, view)
    with_target = for {{:ok, target}, id} <- Enum.with_index(assigned), do: {target, id}
    Enum.group_by(with_target, &elem(&1, 0), &elem(&1, 1))
  end

  @doc "The offer of each target in `by_target`, which has the numbers of the servers, to the receivers that are ready."
  @spec offers(Snapshot.t(), %{(target :: String.t()) => [non_neg_integer(), ...]}, [{String.t(), pid()}]) ::
          [{String.t(), Message.offer()}]
  def offers(snapshot, by_target, ready) do
    Enum.map(by_target, fn {name, ids} ->
      servers = for id <- ids, %{key: key, module: module} = Snapshot.server(snapshot, id), do: {key, module}
      line = ready |> line(name) |> Enum.map(fn {_name, pid} -> pid end)
      {name, Message.offer(make_ref(), node(), servers, line, map_size(by_target))}
    end)
  end

  # The receiver and those after it in ring order.
  defp line(ready, name) do
    {before, from} = Enum.split_while(ready, fn {other, _pid} -> other != name end)
    Enum.take(from ++ before, @in_line)
  end

  # The number of servers accepted, by node. A receiver that refuses leaves its line before any other node
  # waits for it.
  defp send_all(offers, deadline_us) do
    offers
    |> Enum.map(fn {name, offer} -> {name, offer, Enum.map(offer.line, &{&1, Message.ask(&1, {:accept, offer})})} end)
    |> Map.new(fn {name, offer, requests} ->
      answers = for {pid, request} <- requests, do: {pid, answer(request, deadline_us)}
      {accepted, refused} = Enum.split_with(answers, &match?({_pid, {:ok, _count}}, &1))
      for {pid, {:error, _reason}} <- refused, {other, _ok} <- accepted, do: Message.stood_down(other, pid)
      {name, if(accepted == [], do: 0, else: length(offer.servers))}
    end)
  end

  defp answer(request, deadline_us) do
    case :gen_server.receive_response(request, Clock.until_ms(deadline_us)) do
      {:reply, answer} -> answer
      :timeout -> :timeout
      {:error, _gone} -> :gone
    end
  end
end
