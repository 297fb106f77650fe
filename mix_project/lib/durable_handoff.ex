defmodule DurableHandoff do
  @moduledoc """
  Moves durable servers to other nodes while they still run, instead of stopping them, when a node shuts down.

  Without it, a node that shuts down stops its `DurableServer`s. Other nodes start the permanent ones at their
  next sweep, up to a minute later, and the others when a request comes. With it, the node first moves each
  server to a node that has room. The server is down for a few round trips to the store.

      children = [
        {DurableHandoff.Supervisor,
         name: MyApp.Durable, prefix: "myapp/", backend: backend,
         handoff_on_shutdown: [timeout_ms: 30_000, shutdown_budget_ms: 120_000]}
      ]

  All options but `handoff_on_shutdown` (`DurableHandoff.Options`) and `client` (`DurableHandoff.Client`) go
  unchanged to `DurableServer.Supervisor`. Your calls keep using it, with the same name. For a supervisor that
  is already in your tree, see `DurableHandoff.Drainer`.

  ## Guarantees

    * **A drain never makes things worse than no drain.** A server is stopped only when a healthy, connected
      node that is not draining has room for it. If it then finds no place, the drain gives it up, and another
      node starts it. A server that was not stopped stays as it was until the graceful shutdown.
    * **The node never waits longer than `timeout_ms`**, whatever fails.
    * **At most `max_concurrency` servers are down at any time** because of a drain. One that it gives up
      counts no more: other nodes start it.
    * **Nothing runs twice.** Every start is DurableServer's own conditional claim.
    * **A Rust node is never needed.** Without one, or when it is lost, the engine in this VM decides.
    * **`DurableHandoff.call` never sends a request again that may have been handled**
      (`DurableHandoff.Client`).
    * **Nothing is lost that a graceful shutdown would have kept.** All servers store their state before any
      is moved, and each again before it is stopped.

  Not guaranteed: that every server moves. The report counts those that stayed, by reason.

  ## A drain, step by step

    1. The node learns that it is to stop, from SIGTERM, `bin/my_app stop` or `prepare_stop/0`. It marks itself
       as draining, so that other nodes send it no servers, and has all its servers store their state while they
       run.
    2. Its supervisors stop their children, last to first. The drain starts when it is the turn of
       `DurableHandoff.Drainer`, which was started right after `DurableServer.Supervisor`.
    3. The drain takes a snapshot of the servers and of the other nodes. The Rust engine in this VM, or a Rust
       node that runs the same engine for all draining nodes, decides which server moves where and when.
    4. For each move, a process asks DurableServer to move the server, and reports the outcome to the engine.
    5. When every server is settled, or the time is up, callers get the `DurableHandoff.Report`.
    6. DurableServer's graceful shutdown stops the servers that were not moved. Those that could run elsewhere,
       but for which time, room or targets were lacking or attempts failed, are *leftovers*: they are offered to
       other nodes, and one that accepts starts the server as soon as its state is stored, instead of at its next
       sweep (option `start_leftovers`).

  ## Names that do not exist

  When neither a supervisor nor a Drainer of that name runs on this node, every function except those of
  callers (`call/4`, `cast/4`, `await/3`, `whereis/2`) returns `{:error, {:unknown_supervisor, %{given: name,
  did_you_mean: near}}}`. `near` is a similar name of a supervisor with a Drainer on this node, or `nil`.

  ## Limits

    * The mark of a shutdown cannot be undone: from then on the node starts no servers until its supervisor is
      restarted. `drain/2` only cordons the node, and `uncordon/1` takes that back.
    * The engine cannot be replaced in a running VM: a new version of this library takes effect with the next
      start of the node.
  """

  alias DurableHandoff.{Client, Cordon, Drainer, Host, Move, Options, Plan, Rebalance, Report, Schema, Status, Stopping}
  alias DurableHandoff.Drain.Peers

  @type status :: %{
          supervisor: atom(),
          state: :idle | :draining | :drained | :cancelled | :failed,
          marked: boolean(),
          cordoned: boolean(),
          progress: nil | map(),
          report: nil | Report.t(),
          waiting: non_neg_integer(),
          rebalance: %{
            state: :idle | :running | :ended | :failed,
            progress: nil | map(),
            report: nil | Report.t(),
            waiting: non_neg_integer()
          },
          out_of_reach: [String.t()]
        }

  @typedoc """
  No supervisor of that name runs on this node. `did_you_mean`: a supervisor that does run here and has a
  similar name.
  """
  @type unknown :: {:unknown_supervisor, %{given: atom(), did_you_mean: nil | atom()}}

  @typedoc "Why nothing can be asked of a supervisor here."
  @type absent :: :no_drainer | :supervisor_not_running | unknown()

  @doc """
  Drains `supervisor` on this node now and returns the report. For operators, and for hooks that run before a
  node is stopped.

  `overrides` are options (`DurableHandoff.Options`) for this drain only. If a drain already runs, the call
  waits for that drain, which keeps its own options. The node is cordoned when the drain starts and stays
  cordoned until `uncordon/1`. A later shutdown drains the servers that stayed or were started since. A shutdown that
  comes meanwhile waits for the drain, or ends it (`:cancelled`) if its `max_concurrency`, `max_concurrency_per_target`
  or `max_per_second` is lower than the shutdown's, or its `wait_for_target_ms` is higher, and moves the rest.

  With `await: false` it returns at once: `{:ok, :started}`, or `{:ok, :joined}` when a drain already runs.
  `status/1` has the progress, and the report at the end. `cancel/1` ends the drain early.

  If no other node can take servers, it returns `{:error, :no_peers}` and changes nothing. A drain would then
  move nothing and only cordon this node. `force: true` drains anyway. So does a `wait_for_target_ms` above 0,
  which waits for a node.

  Errors: `:no_peers`, `:no_drainer` (no `DurableHandoff.Drainer` runs for it here),
  `:supervisor_not_running`, `:calling_self` (a server of this supervisor cannot wait in a callback for a drain that moves
  it: use `await: false`), `:overdue` (the node shuts down meanwhile, or the drain hangs), `{:drain_failed, reason}`
  (its process crashed), or `{:invalid, texts}`: a limit was exceeded (10,000,000 servers, 20,000 nodes, 64 sticky
  levels), and nothing was moved; the texts say which. After these three the node stays cordoned.
  Raises `ArgumentError` when an option is wrong.

      {:ok, report} = DurableHandoff.drain(MyApp.Durable, timeout_ms: 60_000)
      IO.puts(report)
  """
  @spec drain(atom(), keyword()) ::
          {:ok, Report.t() | :started | :joined}
          | {:error,
             :no_peers | :calling_self | :overdue | absent() | {:invalid, [String.t()]} | {:drain_failed, term()}}
  def drain(supervisor, overrides \\ []) do
    name!(supervisor)
    {await?, overrides} = Schema.flag!(overrides, :await, true)
    {force?, overrides} = Schema.flag!(overrides, :force, false)
    no_dry_run!(overrides)

    case Status.read(supervisor) do
      nil ->
        Status.absent(supervisor)

      %{options: options, state: state} ->
        options = Options.override!(options, overrides, [:await, :force])

        cond do
          await? and Host.calls_itself?(supervisor) -> {:error, :calling_self}
          not force? and state != :draining and alone?(supervisor, options) -> {:error, :no_peers}
          await? -> Drainer.drain(supervisor, options)
          true -> Drainer.start_drain(supervisor, options)
        end
    end
  end

  defp alone?(supervisor, options) do
    options.wait_for_target_ms in [nil, 0] and Host.whereis(supervisor) != nil and
      Peers.that_may_take_servers(supervisor) == []
  end

  @doc """
  Marks this VM as going down. Call it in `prep_stop/1` of an application, or in a preStop hook.

      def prep_stop(state) do
        DurableHandoff.prepare_stop()
        state
      end

  Marks every supervisor of this VM draining, all at once, and notes the time, from which `shutdown_budget_ms`
  counts. Other nodes send no servers here from then on, and all servers store their state while they run. It
  stops no server; the shutdown that follows does.
  The library does all this by itself on SIGTERM and `:init.stop/0`, so call it only where a node is stopped in
  another way, or before SIGTERM. Calling it again is harmless. It needs the application `:durable_handoff` to run, as
  it does unless a dependency has `runtime: false`: without it no supervisor is marked.

  **This cannot be undone:** other nodes send no servers here until the VM is restarted, and a supervisor of this VM starts
  none until that supervisor is restarted.

  Returns within about five seconds. Errors:

    * `{:not_marked, %{supervisor => reason}}`: these supervisors could not be marked in the store; their drains
      try again;
    * `:application_not_started`: the application `:durable_handoff` does not run here, so no supervisor was marked.
      Only the time is noted.
  """
  @spec prepare_stop() :: :ok | {:error, :application_not_started | {:not_marked, %{atom() => term()}}}
  def prepare_stop, do: Stopping.prepare()

  # `rebalance/2` takes `dry_run`, and so does the operator's command.
  defp no_dry_run!(overrides) do
    if Keyword.keyword?(overrides) and Keyword.has_key?(overrides, :dry_run) do
      raise ArgumentError, "invalid options:\n  * a drain has no :dry_run: use DurableHandoff.plan/2"
    end
  end

  defp name!(name), do: Schema.supervisor_name!(name, "DurableHandoff: the first argument")

  @doc """
  Ends the drain or the rebalance that runs on this node. No further move starts, moves in flight finish, and all
  callers get the report, with `ended: :cancelled`. A drain that waits until a rebalance has ended is cancelled with it,
  before its first move.

  Servers that have not moved continue to run on this node. After a drain the node stays cordoned: other nodes
  send it no servers, and it starts none until `uncordon/1`. During a shutdown the graceful shutdown stops the
  rest, which is offered to other nodes as at any other end of a drain.

      :ok = DurableHandoff.cancel(MyApp.Durable)
  """
  @spec cancel(atom()) :: :ok | {:error, :not_draining | absent()}
  def cancel(supervisor), do: supervisor |> name!() |> Drainer.cancel() |> explain(supervisor)

  defp explain({:error, :no_drainer}, supervisor), do: Status.absent(supervisor)
  defp explain(result, _supervisor), do: result

  @doc """
  Cordons this node: it takes no servers, and those that run there continue to run.

  Other nodes send it none, also in drains that run already, and DurableServer's own placement chooses other
  nodes. It starts none itself: `ensure_started_child` on this node places the server elsewhere. Connected nodes
  learn of it at once, the others with the next heartbeat. `uncordon/1` takes it back. A cordon ends with the
  supervisor. To cordon a node again, or one that shuts down, changes nothing.

      :ok = DurableHandoff.cordon(MyApp.Durable)
  """
  @spec cordon(atom()) :: :ok | {:error, absent()}
  def cordon(supervisor), do: supervisor |> name!() |> Cordon.cordon() |> explain(supervisor)

  @doc """
  Takes back `cordon/1`, and the cordon that a `drain/2` has left: this node takes servers again.

  Errors: `:stopping`: the node shuts down, or `prepare_stop/0` was called; that is final. `:draining`: a drain
  runs here; end it with `cancel/1` first. `:no_drainer`, `:supervisor_not_running`.

      :ok = DurableHandoff.uncordon(MyApp.Durable)
  """
  @spec uncordon(atom()) :: :ok | {:error, :stopping | :draining | absent()}
  def uncordon(supervisor), do: supervisor |> name!() |> Cordon.uncordon() |> explain(supervisor)

  @doc """
  Moves the server `key` to another node, wherever in the cluster it runs now.

      {:ok, %{to: node}} = DurableHandoff.move(MyApp.Durable, "room/1")
      {:ok, _moved} = DurableHandoff.move(MyApp.Durable, "room/1", to: :"app-2@host")

  A move is a drain of this one server: the same placement, the same guarantees, and callers wait through it. The
  policy (`DurableHandoff.Policy`) is ignored. `gap_ms` in the answer: how long the
  server was unavailable at most. A server that runs on `to` already stays, with `attempts: 0`.

  #{DurableHandoff.Move.docs()}

  Errors:

    * `{:unknown_key, %{given:, did_you_mean:}}`: no connected node runs it, for a second, and the store names no other
      node. `did_you_mean`: a key on this node that is near;
    * `{:unknown_node, %{given:, did_you_mean:}}`: no node of that name has a heartbeat;
    * `{:not_moved, %{reason:, to:, error:, runs_on:}}`: `reason` is one of `DurableHandoff.Report`, `:failed`
      (the move ended without a result), or why `to` is no target: `:not_connected`, `:draining` (it is cordoned
      or stopping). `error`: the first
      failure, as text. `runs_on`: the node that runs the server now, or on which it is still stopping (it is started
      again when it has stopped); `nil`: none yet, DurableServer starts it
      at its next sweep, or the server has ended by itself (`:gone`);
    * `:draining`: the server's node drains;
    * `:calling_self`: a server cannot move itself inside a callback, where it cannot be stopped; start a process for it;
    * `{:owner_failed, %{node:, reason:}}`: the server's node could not be asked (`{:erpc, :noconnection}`: this node cannot
      connect to it, or may not with `reconnect: false`; call this function there), its release cannot move one, or no
      Drainer runs there (`:no_drainer`);
    * `:no_drainer`, `:supervisor_not_running`.

  Raises `ArgumentError` when an option is wrong, or `key` is not a string.
  """
  @spec move(atom(), String.t(), keyword()) ::
          {:ok, %{from: node(), to: node(), gap_ms: number(), attempts: non_neg_integer()}}
          | {:error,
             :draining | :calling_self | absent() | {:unknown_key | :unknown_node | :owner_failed | :not_moved, map()}}
  def move(supervisor, key, options \\ []), do: supervisor |> name!() |> Move.run(key, options)

  @doc """
  Moves what this node carries above its share of all servers to the nodes that are below theirs, and no more.

      {:ok, plan} = DurableHandoff.rebalance(MyApp.Durable, dry_run: true)
      {:ok, report} = DurableHandoff.rebalance(MyApp.Durable)
      IO.puts(report)

  Each node moves its own excess, so call it on every node, or use `durable-handoff-node rebalance`. With the option
  `rebalance` (`DurableHandoff.Options`) nodes do it by themselves when a node has joined or a deploy has ended.

  A node's share is computed from the same loads, limits and weights as the placement of a drain. Servers of the
  lowest priority move first. Servers that the policy keeps, or that arrived on this node within `after_ms`,
  do not move. Nothing moves while a node drains or is cordoned, or while nodes run different releases:
  `balance.idle` in the report says so. Progress and the last report are in `status/1`; `cancel/1` ends it
  early. A drain or a shutdown ends it at once and goes first.

  `dry_run: true` returns the `DurableHandoff.Plan`; `await: false` returns `{:ok, :started}` or `{:ok, :joined}` at
  once. The other options are those of `rebalance`, for this call:

  #{DurableHandoff.Rebalance.Settings.docs()}

  This function does not wait for `after_ms`. With `after_ms: 0` servers that have just arrived may move, too.

  Errors: `:draining` (this node drains), `:cordoned` (drain it instead), `:stopping`, `:no_drainer`,
  `:supervisor_not_running`, `:overdue` (a drain or a shutdown came, and moves in flight continue by
  themselves; or it hangs), `:calling_self`, `{:drain_failed, reason}` and `{:invalid, texts}` (see `drain/2`). Raises
  `ArgumentError` when an option is wrong.
  """
  @spec rebalance(atom(), keyword()) ::
          {:ok, Report.t() | Plan.t() | :started | :joined}
          | {:error, atom() | unknown() | {:drain_failed, term()} | {:invalid, [String.t()]}}
  def rebalance(supervisor, options \\ []), do: supervisor |> name!() |> Rebalance.run(options)

  @doc """
  What `drain/2` would do now: which server moves where, which stays and why, and an estimate of the time.
  Changes nothing.

  Works for every `DurableServer.Supervisor` on this node. One without a Drainer is planned with the default
  options. Errors: `:supervisor_not_running`, and `{:invalid, texts}` (see `drain/2`).

      {:ok, plan} = DurableHandoff.plan(MyApp.Durable)
      IO.puts(plan)
  """
  @spec plan(atom(), keyword()) :: {:ok, Plan.t()} | {:error, absent() | {:invalid, [String.t()]}}
  def plan(supervisor, overrides \\ []) do
    name!(supervisor)
    Host.ensure_loaded!()
    options = with %{options: options} <- Status.read(supervisor), do: options, else: (nil -> Options.new!(true))
    options = Options.override!(options, overrides)
    if Host.whereis(supervisor), do: Plan.make(supervisor, options), else: Status.absent(supervisor)
  end

  @doc """
  The state of `supervisor`'s drain on this node. Answers during a shutdown too.

    * `state`: `:idle`, `:draining`, or how the last drain ended: `:drained`, `:cancelled`, `:failed`;
    * `marked`: other nodes send no servers here. DurableServer starts none here either, unless its supervisor has been
      restarted after `prepare_stop/0`;
    * `cordoned`: `cordon/1` or `drain/2` has marked the node, and `uncordon/1` undoes it. If this is false
      and `marked` is true, a shutdown or `prepare_stop/0` has marked the node for good;
    * `progress`: of the current or the last drain, as numbers of servers: `total`; `pending`, running here until an attempt;
      `in_flight`, in an attempt; `stopping`; `displaced`, stopped and without a place yet; `moved`; `left`;
      `retried`, with more than one attempt. And `failures` (attempts), `limit` (how many attempts may run at a
      time), `excess` (of a rebalance) and `finished`. `waits_for`: why nothing is in flight although servers are left:
      `:store`, which has failed an attempt; `:target`, there is none, or all rest after a failure or are at their limits;
      `:limit`, which other drains on the store use up (only a Rust node knows these), or servers that are still
      stopping; `:pace`, `max_per_second`; else `nil`;
    * `report`: of the last drain that ended. A drain that found no servers does not replace it;
    * `waiting`: how many callers of `drain/2` wait for the current drain;
    * `rebalance`: its `state`, `progress` and `report`, in which `balance.idle` says why nothing was moved; `waiting`:
      how many callers of `rebalance/2` wait;
    * `out_of_reach`: nodes that are healthy by their heartbeats in the store, but not connected to this one.
  """
  @spec status(atom()) :: {:ok, status()} | {:error, absent()}
  def status(supervisor) do
    case supervisor |> name!() |> Status.read() do
      nil ->
        Status.absent(supervisor)

      status ->
        out_of_reach = Peers.out_of_reach(Host.View.build(supervisor, [], []))
        {:ok, status |> Map.delete(:options) |> Map.merge(%{supervisor: supervisor, out_of_reach: out_of_reach})}
    end
  end

  @doc """
  Calls the server `key` as `GenServer.call/3` does, wherever in the cluster it runs, and waits through a
  move.

  Finds the owner and sends it the request. When there is no owner, or the owner ends without having handled the
  request, it waits for the new owner and sends the request again, all within one `timeout`. With the owner in
  place it costs what a lookup and a `GenServer.call/3` cost. Never exits. The server is named by its key: for a
  pid use `GenServer.call/3`.

      {:ok, 42} = DurableHandoff.call(MyApp.Durable, "counter/1", :increment)
      {:ok, _} = DurableHandoff.call(MyApp.Durable, "room/1", :join, start: {MyApp.Room, %{members: []}})

  ## Options

  #{DurableHandoff.Client.Options.docs()}

  `DurableHandoff.Client` documents how many callers may wait at a time, when a request is sent again, and which
  answers end a start.

  ## Errors

  The request was not handled:

    * `:no_owner`: the server had no owner within `timeout`.
    * `:supervisor_not_running`: the supervisor does not run on this node.
    * `{:overloaded, %{limit: name, max: n}}`: too many callers wait already.
    * `{:start_failed, reason}`: `start:` could not start it; `reason` is DurableServer's.
    * `:calling_self`: a server cannot call itself.

  The request may have been handled, or may still be:

    * `:timeout`: it was sent, and no reply came in time.
    * `:noconnection`: the connection to the owner was lost after sending.
    * any other reason is the exit reason of the owner. With `retry: :never` this can also be a reason that
      proves that it was not handled, such as `:noproc`, `:normal` or `:shutdown`.

  With `retry: :always` these errors describe only the last time that the request was sent. It may have been
  handled earlier.
  """
  @spec call(atom(), term(), term(), keyword()) :: {:ok, reply :: term()} | {:error, Client.error()}
  def call(supervisor, key, request, opts \\ []), do: Client.call(supervisor, key, request, opts)

  @doc """
  Sends the server `key` a message as `GenServer.cast/2` does. While the server has no owner, it waits for one,
  at most `timeout`.

  `:ok` says only that the message was sent to the owner that this node knows. An owner that is stopping loses
  it. For a message that must arrive use `call/4`. Takes the options of `call/4` except `retry`, and returns its
  errors for requests that were not handled.

      :ok = DurableHandoff.cast(MyApp.Durable, "counter/1", :increment)
  """
  @spec cast(atom(), term(), term(), keyword()) :: :ok | {:error, Client.error()}
  def cast(supervisor, key, message, opts \\ []), do: Client.cast(supervisor, key, message, opts)

  @doc """
  The process that runs the server `key`, as this node knows it. `nil` when there is none or it cannot be
  reached. Never waits.

      pid = DurableHandoff.whereis(MyApp.Durable, "counter/1")
  """
  @spec whereis(atom(), term()) :: pid() | nil
  def whereis(supervisor, key), do: Client.whereis(supervisor, key)

  @doc """
  Waits until the server `key` has an owner, and returns its pid. Takes the options of `call/4` except `retry`,
  and returns its errors.

      {:ok, pid} = DurableHandoff.await(MyApp.Durable, "counter/1", timeout: 30_000)
  """
  @spec await(atom(), term(), keyword()) :: {:ok, pid()} | {:error, Client.error()}
  def await(supervisor, key, opts \\ []), do: Client.await(supervisor, key, opts)
end
