defmodule DurableHandoff.Operator do
  @moduledoc false
  # Answers the requests of operators, such as `durable-handoff-node drain`: describe this node, plan a drain,
  # drain, cordon, uncordon, move a server, rebalance.
  #
  # Each function runs in a process of its own and ends when the answer is sent. Guarantees: every request is
  # answered once, with a result or with a refusal that gives the reason; the progress of a drain, rebalance or move is sent
  # every 500 ms, also while nothing moves yet. When the operator is gone a drain, rebalance or move begins or goes on,
  # and the request ends. No name from outside becomes an atom. A list of supervisors fits into one frame of a Rust node.

  alias DurableHandoff.{Cordon, Host, Log, Report, Schema, Status, Wire}

  @step_ms 500
  # A Rust node ends the connection for a frame of more than 1 MB. The rest of an answer is far below the difference.
  @max_list_bytes 1_000_000
  # Options of a `rebalance_request` that an operator sends only if the node's description lists them: earlier
  # releases would ignore them.
  @rebalance_settings [:after_ms, :tolerance, :min_servers, :max_per_second]
  @knows ["rebalance_settings", "rebalance_after_ms"]

  @doc "Answers with release, clock and supervisors of this node, as many as fit into one frame."
  @spec describe(Wire.id(), pid()) :: :ok
  def describe(request, from) do
    supervisors = Status.supervisors() |> Stream.map(&supervisor/1) |> Stream.reject(&is_nil/1) |> fitting()
    now_ms = System.system_time(:millisecond)
    info = %{release: Wire.release(), now_ms: now_ms, supervisors: supervisors, knows: @knows}
    tell(from, Wire.description(request, info))
  end

  @doc "Drains a supervisor of this node, or plans the drain (`dry_run: true`)."
  @spec drain(Wire.id(), pid(), %{
          supervisor: String.t(),
          timeout_ms: nil | pos_integer(),
          dry_run: boolean(),
          plan: boolean()
        }) :: :ok
  def drain(request, from, what) do
    overrides = if what.timeout_ms, do: [timeout_ms: what.timeout_ms], else: []
    result = with {:ok, name} <- find(what.supervisor), do: drain(name, overrides, what, {request, from})
    answer(result, request, from)
  end

  @doc """
  Cordons a supervisor of this node, or uncordons it (`cordon: false`); without a `supervisor`, all of them.
  In that case supervisors that are stopping are left out of the answer, as are those that do not fit into one
  frame. The request is refused if all are stopping, or if one of them fails for another reason, such as a drain that
  runs; the refusal says which have changed.
  """
  @spec cordon(Wire.id(), pid(), %{supervisor: nil | String.t(), cordon: boolean()}) :: :ok
  def cordon(request, from, %{supervisor: nil} = what) do
    results = for name <- Status.supervisors(), do: {name, change(name, what)}
    changed = for {name, :ok} <- results, do: inspect(name)
    failed = for {name, {:error, reason}} when reason != :stopping <- results, do: {inspect(name), reason}

    result =
      cond do
        results == [] -> {:error, :no_supervisors}
        failed != [] -> {:error, {:some_failed, failed, changed}}
        changed == [] -> {:error, :stopping}
        true -> {:ok, Wire.cordon_done(request, fitting(changed))}
      end

    answer(result, request, from)
  end

  def cordon(request, from, what) do
    result =
      with {:ok, name} <- find(what.supervisor),
           :ok <- change(name, what),
           do: {:ok, Wire.cordon_done(request, [inspect(name)])}

    answer(result, request, from)
  end

  @doc "Moves what is above this node's share, or plans it (`dry_run: true`)."
  @spec rebalance(Wire.id(), pid(), map()) :: :ok
  def rebalance(request, from, what) do
    overrides = for name <- [:timeout_ms | @rebalance_settings], value = what[name], do: {name, value}

    result =
      with {:ok, name} <- find(what.supervisor),
           {:error, :draining} <- rebalance(name, overrides, what, {request, from}),
           do: {:error, {:invalid, ["it drains now"]}}

    answer(result, request, from)
  end

  defp rebalance(name, overrides, %{dry_run: true}, {request, _from}) do
    with {:ok, plan} <- guarded(fn -> DurableHandoff.rebalance(name, [dry_run: true] ++ overrides) end),
         do: {:ok, Wire.plan(request, planned(plan))}
  end

  defp rebalance(name, overrides, %{dry_run: false}, {request, _from} = whom) do
    servers = Host.count(name)

    status = fn ->
      with %{rebalance: %{state: :running} = status} <- Status.read(name), do: begun(status, servers), else: (_ -> nil)
    end

    fn -> DurableHandoff.rebalance(name, overrides) end |> watched(status, whom) |> drained(request)
  end

  @doc "Moves one server, wherever in the cluster it runs."
  @spec move(Wire.id(), pid(), %{
          supervisor: String.t(),
          key: String.t(),
          to: nil | String.t(),
          timeout_ms: nil | non_neg_integer()
        }) :: :ok
  def move(request, from, what) do
    options = [to: what.to, timeout_ms: what.timeout_ms]

    result =
      with {:ok, name} <- find(what.supervisor),
           {:ok, moved} <- watched(fn -> DurableHandoff.move(name, what.key, options) end, &moving/0, {request, from}) do
        gap_us = round(moved.gap_ms * 1_000)
        move = %{from: "#{moved.from}", to: "#{moved.to}", gap_us: gap_us, attempts: moved.attempts}
        {:ok, Wire.move_done(request, move)}
      else
        {:error, :draining} -> {:error, {:invalid, ["its node drains now, and moves it"]}}
        error -> error
      end

    answer(result, request, from)
  end

  # The move may have begun. Its operator gives up when no message has come for a minute.
  defp moving, do: begun(%{progress: nil}, 1)

  defp change(name, %{cordon: true}), do: Cordon.cordon(name)
  defp change(name, %{cordon: false}), do: Cordon.uncordon(name)

  defp supervisor(name) do
    with %{options: options, state: state, marked: marked, cordoned: cordoned} <- Status.read(name) do
      %{
        name: inspect(name),
        generation: options.generation,
        started_at_ms: Host.started_at_ms(name),
        servers: Host.count(name),
        draining: marked,
        cordoned: cordoned and state != :draining
      }
    end
  end

  # With or without the prefix that Elixir gives aliases.
  defp find(text) do
    names = Status.supervisors()

    case Enum.find(names, &(text in [inspect(&1), Atom.to_string(&1)])) do
      nil -> {:error, {:no_supervisor, text, names}}
      name -> {:ok, name}
    end
  end

  defp drain(name, overrides, %{dry_run: true} = what, {request, _from}) do
    with {:ok, plan} <- guarded(fn -> DurableHandoff.plan(name, overrides) end) do
      {:ok, if(what.plan, do: Wire.plan(request, planned(plan)), else: Wire.drain_done(request, as_report(plan)))}
    end
  end

  defp drain(name, overrides, %{dry_run: false}, {request, _from} = whom) do
    servers = Host.count(name)

    status = fn ->
      with %{state: :draining} = status <- Status.read(name), do: begun(status, servers), else: (_ -> nil)
    end

    fn -> DurableHandoff.drain(name, overrides) end |> watched(status, whom) |> drained(request)
  end

  # While servers store their states, which may take most of a drain's time, there are no counts of an engine. `servers`,
  # the number when the request came, includes those that do not move.
  defp begun(%{progress: nil} = status, servers) do
    none = Map.new([:in_flight, :displaced, :stopping, :moved, :left, :failures, :retried, :limit, :excess], &{&1, 0})
    %{status | progress: Map.merge(none, %{total: servers, pending: servers, finished: false})}
  end

  defp begun(status, _servers), do: status

  defp drained(result, request),
    do: with({:ok, %Report{} = report} <- result, do: {:ok, Wire.drain_done(request, Report.to_engine(report))})

  # Runs `work` and returns its result. Meanwhile sends the progress of what `status` says; nil: nothing has begun. When
  # the operator is gone this ends as soon as something has begun, with the process that waits for it: a rebalance can run
  # for an hour, and the next operator needs the place.
  defp watched(work, status, {_request, from} = whom) do
    Process.flag(:trap_exit, true)
    {_pid, ended} = :erlang.spawn_opt(fn -> exit({:ended, guarded(work)}) end, [:link, :monitor])
    await(status, %{ended: ended, gone: Process.monitor(from)}, whom)
  end

  defp await(status, %{ended: ended, gone: gone} = monitors, {request, from} = whom) do
    receive do
      {:DOWN, ^ended, :process, _pid, {:ended, result}} -> result
      {:DOWN, ^ended, :process, _pid, reason} -> {:error, {:drain_failed, reason}}
      {:DOWN, ^gone, :process, _operator, _reason} -> await(status, %{monitors | gone: nil}, whom)
    after
      @step_ms ->
        begun = status.()
        if begun != nil and gone == nil, do: exit(:shutdown)
        with %{progress: %{} = counts} <- begun, do: tell(from, Wire.drain_step(request, counts))
        await(status, monitors, whom)
    end
  end

  # The first of them that together fit into one answer.
  defp fitting(list) do
    {fitting, _bytes} =
      Enum.reduce_while(list, {[], 0}, fn one, {fitting, bytes} ->
        bytes = bytes + :erlang.external_size(one)
        if bytes <= @max_list_bytes, do: {:cont, {[one | fitting], bytes}}, else: {:halt, {fitting, bytes}}
      end)

    Enum.reverse(fitting)
  end

  # A wrong override raises; the operator gets the message.
  defp guarded(work) do
    work.()
  rescue
    error in ArgumentError -> {:error, {:invalid, [Exception.message(error)]}}
  end

  defp planned(plan) do
    %{
      total: plan.total,
      moves: length(plan.moves),
      left: plan.left,
      targets: Enum.sort(plan.targets),
      timeout_ms: plan.timeout_ms,
      estimate_us: plan.estimate && round(plan.estimate.drain_ms * 1_000),
      out_of_reach: plan.out_of_reach
    }
    |> Map.merge(if plan.balance, do: %{balance: plan.balance}, else: %{})
  end

  # For a command of an earlier release, which accepts no plan.
  defp as_report(plan) do
    %{total: total, moves: moved, left: left, targets: targets, estimate_us: estimate_us} = planned(plan)

    Map.merge(
      %{total: total, moved: moved, left: left, targets: targets, duration_us: estimate_us || 0, ended: :done},
      %{
        retried: 0,
        gap_us: %{count: 0, p50: 0, p90: 0, p99: 0, max: 0},
        concurrency: %{last: 0, highest: 0},
        attempts: 0,
        failures: 0
      }
    )
  end

  defp refusal({:invalid, texts}), do: {:invalid, Enum.map(texts, &cut/1)}

  defp refusal(:no_peers),
    do: {:invalid, ["no other node could take its servers: nothing would move, and this node would only be cordoned"]}

  defp refusal(:cordoned), do: {:invalid, ["it is cordoned: drain it instead, or uncordon it first"]}

  defp refusal(:stopping),
    do: {:invalid, ["the node shuts down: it moves its servers itself, and its mark cannot be taken back"]}

  defp refusal(:draining), do: {:invalid, ["it drains now: uncordon it when the drain has ended"]}
  defp refusal(:no_supervisors), do: {:invalid, ["no supervisor with a DurableHandoff.Drainer runs on #{node()}"]}

  defp refusal(:no_drainer), do: {:invalid, ["no DurableHandoff.Drainer runs for it any more"]}
  defp refusal(:supervisor_not_running), do: {:invalid, ["it does not run any more"]}
  defp refusal({:unknown_supervisor, _about}), do: refusal(:supervisor_not_running)

  defp refusal(:overdue) do
    text = "a drain or a shutdown of this node came first, or it did not end in its time"
    {:invalid, [text <> "; moves that were in flight go on by themselves"]}
  end

  defp refusal({:some_failed, failed, changed}) do
    texts =
      for {name, reason} <- Enum.take(failed, 20), {:invalid, [text]} <- [refusal(reason)], do: cut("#{name}: #{text}")

    {:invalid, texts ++ if(changed == [], do: [], else: [cut("done for #{Enum.join(changed, ", ")}")])}
  end

  defp refusal({:unknown_key, about}), do: {:invalid, [unknown("no server", about, "runs")]}
  defp refusal({:unknown_node, about}), do: {:invalid, [unknown("no node", about, "has a heartbeat")]}

  defp refusal({:owner_failed, %{node: node, reason: reason}}),
    do: {:invalid, [cut("its node #{node} could not be asked: #{inspect(reason, limit: 10)}")]}

  defp refusal({:not_moved, why}) do
    where =
      cond do
        why.runs_on -> "it runs on #{why.runs_on}"
        why.reason == :gone -> "it had ended by itself"
        true -> "it runs nowhere until the next sweep"
      end

    error = if why.error, do: " (#{why.error})", else: ""
    {:invalid, [cut("not moved#{if why.to, do: " to #{why.to}"}: #{why.reason}#{error}; #{where}")]}
  end

  defp refusal({:no_supervisor, text, names}) do
    known = Enum.map(names, &inspect/1)
    meant = with name when name != nil <- Schema.nearest(text, known), do: ", did you mean #{name}?"
    shown = if known == [], do: "none", else: known |> Enum.take(20) |> Enum.join(", ")
    {:invalid, [cut("no supervisor #{text} with a Drainer on #{node()}#{meant || "; there is: #{shown}"}")]}
  end

  defp refusal(reason) do
    text = "what an operator asked for failed: #{inspect(reason, limit: 20)}"
    Log.error(:operator_drain_failed, nil, text, reason: reason)
    :failed
  end

  defp unknown(what, %{given: given, did_you_mean: near}, predicate) do
    hint = if near, do: ", did you mean #{near}?", else: ""
    cut("#{what} #{given} #{predicate}#{hint}")
  end

  # A Rust node takes a text of at most 4,096 bytes. A character can have any number of codepoints.
  defp cut(text), do: text |> String.codepoints() |> Enum.take(1_000) |> IO.iodata_to_binary()

  defp answer({:ok, message}, _request, from), do: tell(from, message)
  defp answer({:error, reason}, request, from), do: tell(from, Wire.refuse(request, refusal(reason)))

  # This may block on a busy connection, which is fine in a process of its own.
  defp tell(to, message) do
    :erlang.send(to, message, [:noconnect])
    :ok
  end
end
