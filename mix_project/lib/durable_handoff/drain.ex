defmodule DurableHandoff.Drain do
  @moduledoc false
  # One drain, from marking the node to the report, in a process of its own.
  #
  # Guarantees:
  #
  #   * It ends by its deadline (`DurableHandoff.Deadline`). What is then in flight settles by itself
  #     (`DurableHandoff.Drain.Attempt`).
  #   * It ends early, starting nothing more, when its `Drainer` or DurableServer's supervisor is gone.
  #   * It decides nothing: an engine decides which server moves where and when
  #     (`DurableHandoff.Executor.Session`). This process executes the orders and reports their outcomes. It waits
  #     neither for an attempt nor for another node.
  #
  # The Drainer gets `{:drained, pid, {:ok, report} | {:error, reason}, late}`. `late`, when a shutdown's drain
  # is done: whether servers are `:running` here, or `:starting`, that its snapshot lacked; else nil.
  #
  # ## One server, in the engine, here and in its Attempt
  #
  # The engine decides on a server by its stage. This process keeps, for each Attempt, the phase in which a
  # new one would take over if it died. The Attempt is the process that acts.
  #
  #  engine             Drain (phase)       Attempt                                the server
  #  ─────────────────────────────────────────────────────────────────────────────────────────────────
  #  pending            -                   -                                      runs here
  #    │ start
  #  in flight          :attempting         stores it, then rehomes it             runs, then is stopped
  #    ├ moved, left    -                   ends                                   elsewhere, or as it was
  #    ├ untouched      -                   ends                                   runs here, tried again
  #    ├ stopping       :stopping           waits for its end                      is in terminate/2
  #    │   │ stopped
  #    └ displaced      :displaced          holds it: reserved for this node       runs nowhere
  #        │ start
  #      in flight      :attempting         rehomes it again                       runs nowhere
  #        │ release
  #      releasing      :releasing          clears the reservation                 runs nowhere
  #        │ released
  #      left           -                   ends                                   free for other nodes
  #
  # If the Drain dies, an Attempt that holds a server clears its reservation by itself. If a Rust node decides, its
  # engine and the one here get the same events, so both have these stages.

  import DurableHandoff.Drain.Attempts, only: [is_attempt: 2]

  alias DurableHandoff.{Clock, Deadline, Executor, Host, Log, Options, Report, Status, Telemetry}
  alias DurableHandoff.Drain.{Attempts, Estimate, Learnt, Look, Peers, Progress, Quiet, Ready, Snapshot, Storing}
  alias DurableHandoff.Executor.Session
  alias DurableHandoff.Host.Outcome
  alias DurableHandoff.Leftovers.Offer

  @refresh_ms 1_000
  @first_errors 5

  @enforce_keys [:supervisor, :options, :status, :deadline, :why, :storing, :attempts]
  defstruct @enforce_keys ++
              [
                :snapshot,
                :session,
                :peers,
                :storage,
                :learnt,
                :storing_monitor,
                :early,
                trust_store?: true,
                unanswered: [],
                watched: %{},
                attempted: MapSet.new(),
                first_errors: [],
                stays?: false,
                cancelled?: false,
                stale?: false,
                released: []
              ]

  @type result :: {:ok, Report.t()} | {:error, :supervisor_not_running | {:invalid, [String.t()]}}

  @typedoc """
  `:shutdown`: this node goes down. `:request`: it continues to run what was not moved. A move is a drain of
  one server (`DurableHandoff.Move`), and a rebalance is a drain of the servers above this node's share
  (`DurableHandoff.Rebalance`): neither marks the node, and each server stores its state only in its own
  attempt.
  """
  @type why ::
          :shutdown
          | :request
          | {:move, Host.server(), target :: nil | String.t()}
          | {:rebalance, DurableHandoff.Rebalance.Settings.t()}

  @doc """
  Starts a drain for the calling process, a Drainer, which owns `storing`, and monitors it. A move has neither
  `status` nor `storing`.
  """
  @spec start(Host.name(), Options.t(), Deadline.t(), why(), nil | Status.t(), nil | Storing.t()) ::
          {pid(), reference()}
  def start(supervisor, options, deadline, why, status, storing) do
    drainer = self()

    drain = %__MODULE__{
      supervisor: supervisor,
      options: options,
      status: status,
      deadline: deadline,
      why: why,
      storing: storing,
      attempts: Attempts.new({supervisor, with(:move <- kind(%{why: why}), do: {:move, drainer})})
    }

    :proc_lib.spawn_opt(
      fn ->
        {result, late} = drain |> watch(drainer) |> run()
        send(drainer, {:drained, self(), result, late})
      end,
      [:monitor]
    )
  end

  @doc """
  Ends the drain: no attempt starts, attempts in flight may end. With a deadline the drain ends in time for it. With
  `:shutdown` the rest is offered to other nodes, with `:request` it goes on running here.
  """
  @spec cancel(pid(), :request | {:request | :shutdown, Deadline.t()}) :: :ok
  def cancel(pid, why) do
    send(pid, {:cancel, why})
    :ok
  end

  @doc "Whether this exit reason is that of a shutdown: then this node stops, or the supervisor."
  @spec shutdown?(term()) :: boolean()
  def shutdown?(:shutdown), do: true
  def shutdown?({:shutdown, _detail}), do: true
  def shutdown?(_other), do: false

  @spec run(%__MODULE__{}) :: {result(), late :: nil | :running | :starting}
  defp run(%{supervisor: supervisor} = drain) do
    case Host.whereis(supervisor) do
      nil ->
        {{:error, :supervisor_not_running}, nil}

      host ->
        :net_kernel.monitor_nodes(true, node_type: :all)
        if drain.options.quiet, do: Quiet.hold()
        drain = drain |> watch(host) |> Ready.await()

        with {:ok, drain} <- drain |> snapshot() |> start_session() do
          started(drain)
          drain = loop(drain)
          report = report(drain)
          {{:ok, report}, if(report.ended == :done, do: late(drain))}
        else
          error -> {error, nil}
        end
    end
  end

  defp late(%{why: :shutdown, snapshot: snapshot, supervisor: supervisor}) do
    # The registry may still have servers that have ended.
    running = for %{pid: pid} <- Host.servers(supervisor), Process.alive?(pid), do: pid

    cond do
      not Snapshot.complete?(snapshot, running) -> :running
      not Snapshot.complete?(snapshot, Host.processes(supervisor)) -> :starting
      true -> nil
    end
  end

  defp late(_drain), do: nil

  defp started(%{snapshot: snapshot} = drain) do
    {servers, excluded} = {Snapshot.size(snapshot), length(snapshot.excluded)}
    Telemetry.drain_start(kind(drain), drain.supervisor, drain.deadline, servers, excluded)
    Process.send_after(self(), :refresh, @refresh_ms)
  end

  defp snapshot(%{supervisor: supervisor, options: options} = drain) do
    storage = supervisor |> Host.storage() |> Host.StorageIdentity.of()
    snapshot = Ready.snapshot(drain)
    targets = Peers.in_reach(snapshot.view)
    Ready.announce(drain, snapshot, length(targets))
    Ready.warn_of_another_store(supervisor, Host.Count.elsewhere(snapshot.counts, storage))
    {learnt, measured} = look(drain, %{storage: storage, servers: Snapshot.size(snapshot), targets: targets})
    drain = %{drain | snapshot: snapshot, storage: storage, learnt: learnt}
    estimate(drain, measured)
    peers = Peers.start(snapshot, options.reconnect, drain.deadline)
    %{drain | peers: peers}
  end

  # Nothing will move.
  defp look(%{cancelled?: true}, _about), do: {nil, nil}

  # One move needs no limit, and shows little about the store. A rebalance moves few of the servers, mostly none, so it
  # does not measure the store.
  defp look(%{why: {:move, _server, _target}}, _about), do: {nil, nil}

  defp look(%{why: {:rebalance, _settings}, options: options}, %{storage: storage}),
    do: {Learnt.get(storage, options.max_concurrency), nil}

  defp look(%{supervisor: supervisor, storing: storing} = drain, about) do
    left_ms = Deadline.left_ms(drain.deadline, Clock.now_us())
    own = %{supervisor: supervisor, storing: storing, max_concurrency: drain.options.max_concurrency}
    about |> Map.merge(own) |> Look.take(left_ms)
  end

  defp estimate(%{snapshot: snapshot} = drain, measured) do
    options = %{drain.options | timeout_ms: max(Deadline.left_ms(drain.deadline, Clock.now_us()), 1)}
    others = length(Peers.in_reach(snapshot.view))
    Estimate.announce(drain.supervisor, Snapshot.size(snapshot), others, options, measured)
  end

  defp start_session(%{options: options, supervisor: supervisor} = drain) do
    %{snapshot: snapshot, storage: storage} = drain
    now = Clock.now_us()

    job = %{
      supervisor: inspect(supervisor),
      storage: storage,
      modules: Enum.map(snapshot.modules, &inspect/1),
      config:
        snapshot |> Snapshot.engine_config(options, Deadline.engine_ms(drain.deadline, now)) |> from(drain.learnt),
      entries: snapshot.entries,
      view: snapshot.view
    }

    with {:ok, session} <- Session.start(supervisor, job, rust_nodes(drain, storage), now),
         do: {:ok, %{drain | session: session}}
  end

  # One server needs no coordination.
  defp rust_nodes(%{why: {:move, _server, _target}}, _storage), do: []

  # Rust nodes that do not know rebalances do not know `max_per_second` either, and would ignore it.
  defp rust_nodes(%{options: options} = drain, storage) do
    goal = if options.max_per_second, do: "rebalance", else: Atom.to_string(kind(drain))
    Executor.rust_nodes(options.executor, goal, drain.supervisor, storage)
  end

  defp from(config, nil), do: config
  defp from(config, learnt), do: Map.put(config, :learnt, learnt)

  # The loop: handle all messages that have arrived, ask the engine for orders, execute them, wait for a message. When many
  # nodes go down at once, there is one new view for all of them.
  defp loop(drain) do
    drain = drain |> catch_up() |> refresh()
    {actions, wake, session} = Session.poll(drain.session, Clock.now_us())
    drain = Enum.reduce(actions, %{drain | session: session}, &act/2)
    put_progress(drain, Session.progress(session))
    if :finish in actions, do: drain, else: drain |> await(Clock.until_ms(wake)) |> loop()
  end

  defp put_progress(%{status: nil}, _progress), do: :ok

  defp put_progress(%{why: {:rebalance, _}} = drain, progress),
    do: Status.put_rebalance_progress(drain.status, self(), progress)

  defp put_progress(drain, progress), do: Status.put_progress(drain.status, self(), progress)

  defp catch_up(drain) do
    receive do
      message -> message |> handle(drain) |> catch_up()
    after
      0 -> drain
    end
  end

  defp await(drain, timeout_ms) do
    receive do
      message -> handle(message, drain)
    after
      timeout_ms -> drain
    end
  end

  defp act({:start, id, target, number, timeout_ms}, drain) do
    store = %{watch: drain.storing.watch, trust?: drain.trust_store?}
    order = %{number: number, target: target, timeout_ms: max(timeout_ms, 1), store: store}
    attempts = Attempts.start(drain.attempts, id, Snapshot.server(drain.snapshot, id), order)
    %{drain | attempts: attempts, attempted: MapSet.put(drain.attempted, id)}
  end

  defp act({:release, id}, drain),
    do: %{drain | attempts: Attempts.release(drain.attempts, id, Snapshot.server(drain.snapshot, id))}

  defp act(:finish, drain), do: drain

  defp handle({:attempted, pid, result}, %{attempts: attempts} = drain) when is_attempt(attempts, pid) do
    %{id: id, order: order} = attempt = Attempts.get(attempts, pid)
    Telemetry.attempt(drain.supervisor, Snapshot.server(drain.snapshot, id), order, result)

    # The node may be stopping. If its answer says so, attempts that would fail are avoided.
    if result.outcome == {:displaced, :target}, do: Peers.look_now(drain.peers)
    # The engine must learn of a lost connection before the outcomes it caused, so that it does not blame the attempts.
    drain = if lost?(order.target, result), do: node_down(drain, order.target), else: drain

    %{drain | trust_store?: trust_store?(result.outcome, drain.trust_store?)}
    |> tell({:finished, id, order.number, result.outcome, result.latency_us})
    |> keep_error(attempt, result)
    |> Map.put(:attempts, Attempts.attempted(attempts, pid, result.outcome))
  end

  defp handle({:stopped, pid}, %{attempts: attempts} = drain) when is_attempt(attempts, pid),
    do: tell(%{drain | attempts: Attempts.stopped(attempts, pid)}, {:stopped, Attempts.get(attempts, pid).id})

  # A reservation that could not be cleared is in the log. Trying longer would only delay the shutdown.
  defp handle({:released, pid, _result}, %{attempts: attempts} = drain) when is_attempt(attempts, pid) do
    %{id: id} = Attempts.get(attempts, pid)
    tell(%{drain | attempts: Attempts.forget(attempts, pid), released: [id | drain.released]}, {:released, id})
  end

  defp handle({:DOWN, _monitor, :process, pid, reason}, %{attempts: attempts} = drain) when is_attempt(attempts, pid) do
    server = Snapshot.server(drain.snapshot, Attempts.get(attempts, pid).id)

    text =
      "the process that moved #{inspect(server.key)} died; a new one finds out where the server is: #{inspect(reason)}"

    Log.error(:attempt_died, drain.supervisor, text, key: server.key, reason: reason)
    %{drain | attempts: Attempts.replace(attempts, pid, server)}
  end

  # The Drainer or DurableServer's supervisor. In a shutdown the Drainer stops waiting at its limit. Leftovers
  # are still offered to other nodes, and at once.
  defp handle({:DOWN, monitor, :process, _pid, reason}, drain) when is_map_key(drain.watched, monitor) do
    if shutdown?(reason),
      do: cancel_by(%{drain | stays?: false}, Clock.now_us()),
      else: tell(%{drain | stays?: true}, :cancel)
  end

  defp handle({:cancel, :request}, drain), do: tell(%{drain | stays?: true}, :cancel)

  defp handle({:cancel, {why, deadline}}, drain) do
    drain = %{drain | stays?: why == :request, deadline: Deadline.end_by(drain.deadline, deadline)}
    cancel_by(drain, Deadline.joined_us(deadline))
  end

  defp handle({:nodedown, node, _info}, drain) do
    Peers.look_now(drain.peers)
    node_down(%{drain | stale?: true}, Atom.to_string(node))
  end

  # The node becomes a target when it has answered `Peers`.
  defp handle({:nodeup, _node, _info}, drain) do
    Peers.look_now(drain.peers)
    drain
  end

  defp handle({Peers, nodes, answers, silent}, drain) do
    drain = %{drain | snapshot: Snapshot.answered(drain.snapshot, nodes, answers), stale?: true}
    Enum.reduce(silent, drain, &silent/2)
  end

  defp handle(:refresh, drain) do
    Process.send_after(self(), :refresh, @refresh_ms)

    progress = Session.progress(drain.session)
    text = Progress.line(kind(drain), progress, Clock.now_us() - drain.deadline.begin_us)

    Log.info(
      :drain_progress,
      drain.supervisor,
      text,
      Map.take(progress, [:total, :moved, :left, :in_flight, :waits_for])
    )

    offer_released(%{drain | stale?: true})
  end

  # The store took longer to answer than the drain waits.
  defp handle({Look, measured}, drain) do
    estimate(drain, measured)
    drain
  end

  # Storing ended after the moves began, or it crashed.
  defp handle({Storing, _pid, _asked_or_done}, drain), do: drain
  defp handle({:DOWN, monitor, :process, _pid, _reason}, %{storing_monitor: monitor} = drain), do: drain

  # A message from the Rust node, or an unknown one.
  defp handle(message, drain), do: %{drain | session: Session.handle_message(drain.session, Clock.now_us(), message)}

  defp refresh(%{stale?: false} = drain), do: drain

  defp refresh(drain) do
    drain = %{drain | snapshot: Snapshot.refresh(drain.snapshot), stale?: false}
    {result, session} = Session.send_view(drain.session, Clock.now_us(), drain.snapshot.view)

    with {:error, reason} <- result do
      text = "the drain continues with the last view of the cluster: #{inspect(reason, limit: 10)}"
      Log.warning(:view_refused, drain.supervisor, text, reason: reason)
    end

    %{drain | session: session}
  end

  # For the engine a target that does not answer counts as not connected.
  defp silent(name, drain) do
    drain = if name in drain.snapshot.asked, do: node_down(drain, name), else: drain
    %{drain | attempts: Attempts.leave(drain.attempts, name, &Snapshot.server(drain.snapshot, &1))}
  end

  defp node_down(drain, name), do: tell(%{drain | snapshot: Snapshot.lost(drain.snapshot, name)}, {:node_down, name})

  defp lost?(target, %{outcome: {_outcome, :target}, why: why}),
    do: Outcome.connection_lost?(why) or target not in Enum.map(Node.list(:connected), &Atom.to_string/1)

  defp lost?(_target, _result), do: false

  # A registry that lags is not an error: up to one attempt in ten ends like this.
  defp keep_error(drain, _attempt, %{why: why, outcome: outcome}) when why == nil or outcome == :retry_same, do: drain
  defp keep_error(%{first_errors: errors} = drain, _attempt, _result) when length(errors) == @first_errors, do: drain

  defp keep_error(drain, %{id: id, order: order}, %{why: why}) do
    %{key: key, module: module} = Snapshot.server(drain.snapshot, id)
    error = inspect(why, limit: 10, printable_limit: 200)
    entry = %{key: key, module: module, target: order.target, attempt: order.number, error: error}
    %{drain | first_errors: drain.first_errors ++ [entry]}
  end

  # After a store failure the engine starts one attempt to test the store. A server without changes writes
  # nothing, so that attempt has to make a write of its own.
  defp trust_store?({:moved, _node}, _before), do: true

  defp trust_store?(outcome, _before) when outcome in [:not_stored, {:displaced, :store}, {:untouched, :store}],
    do: false

  defp trust_store?(_outcome, before), do: before

  # What is still in flight at `end_us` settles by itself.
  defp cancel_by(drain, end_us) do
    drain = tell(drain, :cancel)
    now = Clock.now_us()
    %{drain | session: Session.end_within(drain.session, now, max(end_us - now, 0))}
  end

  defp tell(drain, event), do: %{drain | session: Session.handle_event(drain.session, Clock.now_us(), event)}

  defp watch(drain, pid), do: put_in(drain.watched[Process.monitor(pid)], pid)

  defp kind(%{why: {:move, _server, _target}}), do: :move
  defp kind(%{why: {:rebalance, _settings}}), do: :rebalance
  defp kind(_drain), do: :drain

  defp report(drain) do
    drain = %{drain | snapshot: Snapshot.refresh(drain.snapshot)}
    now = Clock.now_us()
    duration_us = now - drain.deadline.begin_us
    {engine, who} = Session.report(drain.session, now)
    Learnt.tell(drain.storage, Map.get(engine, :learnt), drain.options.max_concurrency)

    report =
      Report.new(
        engine,
        Map.merge(who, %{
          supervisor: drain.supervisor,
          excluded: length(drain.snapshot.excluded),
          duration_us: duration_us,
          first_errors: drain.first_errors,
          out_of_reach: Peers.out_of_reach(drain.snapshot.view),
          stored: Storing.counts(drain.storing),
          goal: kind(drain),
          moved_lately: length(drain.snapshot.lately),
          adopted_later: offer_leftovers(drain, Deadline.offer_ms(drain.deadline, now))
        })
      )

    Telemetry.drain_stop(kind(drain), report, drain.deadline, Clock.now_us())
    report
  end

  # Servers that were given up since the last time are down, and the drain may go on for long. At its end they are offered
  # again, with the others. A rebalance starts its own again.
  defp offer_released(%{released: released} = drain) do
    if released != [] and kind(drain) == :drain,
      do: Offer.run(drain.snapshot, Session.results(drain.session), drain.options, fn id, _ -> id in released end, 0)

    %{drain | released: []}
  end

  # A move starts a stopped server again itself, and so does a rebalance: receivers would hold servers that run here.
  defp offer_leftovers(%{why: {:move, _server, _target}}, _budget_ms), do: 0

  defp offer_leftovers(%{options: options, supervisor: supervisor} = drain, budget_ms) do
    if kind(drain) == :rebalance and not Status.marked?(supervisor) do
      0
    else
      # A node that goes on keeps its servers, and those that have ended by themselves stay so. What an attempt has stopped
      # is down.
      offer? = &(not drain.stays? or (&1 in drain.attempted and not Process.alive?(&2.pid)))
      # Servers that a rebalance has stopped may start on any node.
      Offer.run(%{drain.snapshot | rebalance: nil}, Session.results(drain.session), options, offer?, budget_ms)
    end
  end
end
