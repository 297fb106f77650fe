defmodule DurableHandoff do
  @moduledoc """
  Moves durable servers to other nodes while they still run, instead of stopping them, when a node shuts down.

  Without it, a node that shuts down stops its `DurableServer`s. Other nodes start the permanent ones at their
  next sweep, up to a minute later, and the others when a request comes. With it, the node first moves each
  server to a node that has room, and callers wait for a few round trips to the store.

      children = [
        {DurableHandoff.Supervisor,
         name: MyApp.Durable, prefix: "myapp/", backend: backend,
         handoff_on_shutdown: [timeout_ms: 30_000, max_concurrency: 50]}
      ]

  All options but `handoff_on_shutdown` and `client` go unchanged to `DurableServer.Supervisor`. Your calls
  keep using it, with the same name. For a supervisor that is already in your tree, see
  `DurableHandoff.Drainer`.

  ## Guarantees

    * **A drain never makes things worse than no drain:** a server that is not moved stays as it was, no
      reservation stays behind, and the existing graceful shutdown stops it. A server is stopped only when a
      healthy, connected node that is not draining has room for it.
    * **The node never waits longer than `timeout_ms`**, whatever fails.
    * **At most `max_concurrency` servers are down at any time** because of a drain.
    * **Nothing runs twice:** every start is DurableServer's own conditional claim.
    * **A Rust node is never needed:** without one, or when it is lost, the engine in this VM decides.
    * **`DurableHandoff.call` never sends a request again that may have been handled** (`call/4`).
    * **Nothing is lost that a graceful shutdown would have kept:** all servers store their state before any
      is moved (`DurableHandoff.Drain.Storing`), and each again before it is stopped
      (`DurableHandoff.Drain.StoredFirst`). What a drain could not move in time is stopped and stored as
      before; another node starts it as soon as it is stored, instead of at its next sweep
      (`DurableHandoff.Leftovers`; `start_leftovers: false` switches that off).
    * The report and the log name each failure with its reason.

  ## What runs where

  ```text
  DurableHandoff.Supervisor
  ├── DurableHandoff.Client         stopped last: callers wait there for owners that move
  ├── DurableServer.Supervisor      stopped second: its graceful shutdown stops what is left
  ├── DurableHandoff.Leftovers      starts here what drains of other nodes could not move
  └── DurableHandoff.Drainer        stopped first, and drains
      ·
      DurableHandoff.Drain.Storing  one for each Drainer: has the servers store their state first
      DurableHandoff.Drain          one drain: snapshot, engine, report
      ·  monitors
      DurableHandoff.Drain.Attempt  one for each server that moves; can outlive both
      DurableHandoff.Drain.Peers    one for each drain: asks the other nodes, connects to those out of reach

  DurableHandoff.Stopping           one per VM: notices that it goes down, and tells all Drainers
  DurableHandoff.Drain.Quiet        one per VM: keeps DurableServer's lines about moves out of the log during drains
  DurableHandoff.Wire.Endpoint      one per VM: receives what Rust nodes and operators send
  ```

  One drain, step by step:

    1. When the node begins to stop, it is marked draining, and the Drainer has all servers store their
       state.
    2. At its turn the Drainer starts a Drain. When all states are stored, that takes a
       `DurableHandoff.Drain.Snapshot` and gives it to the Rust engine in this VM, or to a Rust node that runs
       the same engine for all draining nodes (`DurableHandoff.Executor`).
    3. The engine decides which server moves where. A `DurableHandoff.Drain.Attempt` asks DurableServer to
       move it (`DurableHandoff.Host`) and gives the outcome to the engine.
    4. When every server is settled, or the time is up, all callers of the drain get the
       `DurableHandoff.Report`.

  ## Options

  #{DurableHandoff.Options.docs()}

  `handoff_on_shutdown: true` takes all defaults; `false`, `nil` or no such option: no handoff. Which servers
  move, and which first, is described in `DurableHandoff.Policy`.

  ## Calling servers

  A move takes tens of milliseconds in which the server has no owner. `call/4` waits through it:

      case DurableHandoff.call(MyApp.Durable, "room/1", {:post, "hello"}) do
        {:ok, reply} -> reply
        {:error, reason} -> {:error, reason}
      end

  So do `cast/4` and `await/3`; `whereis/2` never waits. They take these options:

  #{DurableHandoff.Client.Options.docs()}

  How many callers may wait at a time is the option `client:` of `DurableHandoff.Supervisor`
  (`DurableHandoff.Client`).

  ## Watching it

  Log lines at the start, every second and at the end; `status/1`; events (`DurableHandoff.Telemetry`).

  ## Limits

    * Marking a node draining cannot be undone. After `drain/2` the node starts no more servers until its
      supervisor is restarted.
    * The engine cannot be replaced in a running VM: a new version of this library takes effect with the next
      start of the node.
  """

  alias DurableHandoff.{Client, Drain, Drainer, Host, Options, Plan, Report, Schema, Status, Stopping}
  alias DurableHandoff.Drain.Peers

  @type status :: %{
          supervisor: atom(),
          state: :idle | :draining | :drained | :cancelled | :failed,
          marked: boolean(),
          progress: nil | map(),
          report: nil | Report.t(),
          waiting: non_neg_integer(),
          out_of_reach: [String.t()]
        }

  @doc """
  Drains `supervisor` on this node now and returns the report: for a pre-stop hook or an operator.

  `overrides` are options for this drain alone. A drain that is already running is waited for instead; its own
  options count. The node stays marked draining afterwards: this cannot be undone. A shutdown drains again
  what stayed or came since.

  With `await: false` it returns at once: `{:ok, :started}`, or `{:ok, :joined}` when a drain is running
  already. `status/1` says how far it is, and has the report at the end; `cancel/1` ends it early.

  If no other node can take servers, the answer is `:no_peers` and nothing changes: a drain would move nothing
  and would keep this node from starting servers until its supervisor is restarted. `force: true` drains all
  the same, and so does a `wait_for_target_ms` above 0, which waits for a node to come.

  Errors: `:no_peers`, `:no_drainer` (no `DurableHandoff.Drainer` runs for it here),
  `:supervisor_not_running`, `:overdue` (only when the node shuts down meanwhile), `{:invalid, texts}` or
  `{:drain_failed, reason}`. Raises `ArgumentError` when an option is wrong.
  """
  @spec drain(atom(), keyword()) ::
          Drain.result()
          | {:ok, :started | :joined}
          | {:error, :no_peers | :no_drainer | :overdue | {:drain_failed, term()}}
  def drain(supervisor, overrides \\ []) do
    name!(supervisor)
    {await?, overrides} = flag!(overrides, :await, true)
    {force?, overrides} = flag!(overrides, :force, false)

    case Status.read(supervisor) do
      nil ->
        {:error, :no_drainer}

      %{options: options, state: state} ->
        options = Options.override!(options, overrides)

        cond do
          not force? and state != :draining and alone?(supervisor, options) -> {:error, :no_peers}
          await? -> Drainer.drain(supervisor, options)
          true -> Drainer.start_drain(supervisor, options)
        end
    end
  end

  defp alone?(supervisor, options) do
    options.wait_for_target_ms in [nil, 0] and Host.whereis(supervisor) != nil and
      Peers.in_reach(Host.View.build(supervisor, [], [])) == []
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
  The library does all this by itself on SIGTERM and `:init.stop/0` (`DurableHandoff.Stopping`), so call it
  only where a node is stopped in another way, or before SIGTERM. Calling it again is harmless.

  **There is no way back:** this node starts no servers until its supervisors are restarted.

  Returns within about five seconds. `{:error, {:not_marked, %{supervisor => reason}}}`: these supervisors
  could not be marked in the store; their drains try again.
  """
  @spec prepare_stop() :: :ok | {:error, {:not_marked, %{atom() => term()}}}
  def prepare_stop, do: Stopping.prepare()

  defp flag!(overrides, name, default) do
    if Keyword.keyword?(overrides) do
      case Keyword.pop(overrides, name, default) do
        {flag?, overrides} when is_boolean(flag?) ->
          {flag?, overrides}

        {other, _overrides} ->
          raise ArgumentError, "invalid options:\n  * #{inspect(name)} got #{inspect(other)}, expected true or false"
      end
    else
      {default, overrides}
    end
  end

  defp name!(name), do: Schema.supervisor_name!(name, "DurableHandoff: the first argument")

  @doc """
  Ends the drain that runs on this node: no further move starts, moves in flight finish, and all callers that
  wait for the drain get its report, with `ended: :cancelled`.

  Servers that have not moved go on running here. The node stays marked draining all the same: other nodes
  send it nothing and it starts nothing new until its supervisor is restarted. During a shutdown the rest is
  stopped by the existing graceful shutdown, and offered to other nodes as at any other end of a drain.
  """
  @spec cancel(atom()) :: :ok | {:error, :not_draining | :no_drainer}
  def cancel(supervisor), do: supervisor |> name!() |> Drainer.cancel()

  @doc """
  What `drain/2` would do now: which server goes where, which stays and why, and about how long it takes.
  Changes nothing.

  Works for every `DurableServer.Supervisor` on this node; one without a Drainer is planned with the default
  options.
  """
  @spec plan(atom(), keyword()) :: {:ok, Plan.t()} | {:error, :supervisor_not_running | {:invalid, [String.t()]}}
  def plan(supervisor, overrides \\ []) do
    name!(supervisor)
    Host.ensure_loaded!()
    options = with %{options: options} <- Status.read(supervisor), do: options, else: (nil -> Options.new!(true))
    options = Options.override!(options, overrides)
    if Host.whereis(supervisor), do: Plan.make(supervisor, options), else: {:error, :supervisor_not_running}
  end

  @doc """
  What `supervisor`'s drain is doing on this node. Answers during a shutdown too.

  `progress` is that of the current or the last drain, `report` that of the last one that ended; one that
  found no server does not replace an earlier one. `state`: `:cancelled` after a drain that was cancelled.
  `waiting`: callers of `drain/2` that wait for the drain that runs.
  `marked`: this node is marked draining, by a drain or by `prepare_stop/0`, and starts no servers.
  `out_of_reach`: nodes that are healthy by their heartbeats in the store, but not connected to this one.
  """
  @spec status(atom()) :: {:ok, status()} | {:error, :no_drainer}
  def status(supervisor) do
    case supervisor |> name!() |> Status.read() do
      nil ->
        {:error, :no_drainer}

      status ->
        out_of_reach = Peers.out_of_reach(Host.View.build(supervisor, [], []))
        {:ok, status |> Map.delete(:options) |> Map.merge(%{supervisor: supervisor, out_of_reach: out_of_reach})}
    end
  end

  @doc """
  Calls the server `key` as `GenServer.call/3` does, wherever in the cluster it runs, and waits through a
  move.

  Finds the owner and sends it the request. When there is no owner, or the owner goes away without having
  handled the request, it waits for the new owner and sends it again, all within one `timeout`. It learns of
  the new owner from the registry, or from the node that moved the server (`DurableHandoff.Client`). With
  the owner in place it costs what a lookup and a `GenServer.call/3` cost. Never exits; options are in the
  module's documentation. The server is named by its key: for a pid use `GenServer.call/3`.

      {:ok, 42} = DurableHandoff.call(MyApp.Durable, "counter/1", :increment)
      {:ok, _reply} = DurableHandoff.call(MyApp.Durable, "room/1", :join, start: {MyApp.Room, %{members: []}}, timeout: 10_000)

  ## When a request is sent again

  | what happened to the one before | `:unhandled` (default) | `:always` | `:never` |
  |---|---|---|---|
  | no owner, or no connection to it: nothing was sent | waits, sends | waits, sends | waits, sends |
  | the owner had ended before it arrived (`:noproc`) | again | again | error |
  | the owner was stopped and did not reply: it ended with `:normal` or `:shutdown` | again | again | error |
  | the owner did not come up: it ended with `{:shutdown, {:durable, {:init_failed, _}}}` or `{:shutdown, {:durable, :ignored}}` | again | again | error |
  | the owner ended with any other reason and did not reply | error | again | error |
  | the connection was lost after sending | error | again | error |
  | no reply in time | error | error | error |

  With `:unhandled` a request is sent again only if the exit reason proves that it was not handled. A server
  that has been told to stop handles nothing more from its mailbox, and a reply that it has sent arrives
  before the news of its end. What the reasons mean:

  | exit reason | what ends a DurableServer with it | was a request without a reply handled? |
  |---|---|---|
  | `:normal` | a move, the graceful shutdown, `terminate_child`, `terminate_child_permanent`, a cordon | no |
  | `:normal` | a callback that returns `{:stop, :normal, state}`, `{:stop, :delete, state}` or `{:stop, :permanent, state}` | yes, if it was the callback of this request: **see below** |
  | `:shutdown` | the supervisor | no |
  | `{:shutdown, {:durable, {:init_failed, _}}}`, `{:shutdown, {:durable, :ignored}}` | a start that failed | no |
  | `{:shutdown, {:durable, {:fatal_exit, _}}}` | the server itself, because it lost its stored object (another process wrote it) or its registration (two owners after a netsplit), or because a `:sync` failed (from 0.1.5 on) | perhaps: its callback runs before the write that fails |
  | `{:shutdown, :normal}`, `{:shutdown, :permanent}` | a callback that stops the server | perhaps |
  | `{:shutdown, :delete}` | a callback, or a deletion | perhaps |
  | `{:shutdown, _}` of a later version | unknown | perhaps |
  | `{:error, _}`, an exception, `:killed` and all others | a crash, a failed upgrade of the code, a kill after a time limit | perhaps |

  So no request is handled twice, **if the server replies inside its callback**: with `{:reply, ...}`,
  `{:stop, reason, reply, state}` or `GenServer.reply/2` before the callback returns. There are two
  exceptions, and both look like a request that was never handled:

    * A server that takes a request (`{:noreply, ...}`), replies later, and is stopped in between.
    * A callback that ends the server with `:normal` and does not reply: `{:stop, :normal, state}`,
      `{:stop, :delete, state}`, `{:stop, :permanent, state}`. The same holds for one that calls `exit/1` with
      `:normal`, `:shutdown` or `:noproc`. DurableServer gives a move the same reason. Reply
      (`{:stop, :normal, reply, state}`), or use `{:stop, {:shutdown, :normal}, state}`, where your version
      has it.

  For such requests use `retry: :never`, or make them safe to repeat.

  `:always` is for requests that may be handled twice. `:never` sends at most once.

  ## Errors

  | reason | was it handled? |
  |---|---|
  | `:no_owner` | no: the server had no owner within `timeout` |
  | `:supervisor_not_running` | no: the supervisor does not run on this node |
  | `{:overloaded, %{limit: name, max: n}}` | no: as many as may already wait (`DurableHandoff.Client`) |
  | `{:start_failed, reason}` | no: `start:` could not start it; `reason` is the host's, see below |
  | `:calling_self` | no: a server cannot call itself |
  | `:timeout` | perhaps, or it will be: it was sent and there was no reply in time |
  | `:noconnection` | perhaps: the connection to the owner was lost after sending |
  | any other | perhaps: this is the exit reason of the owner, as the host gives it. With `retry: :never` also reasons that say "no", such as `:noproc`, `:normal` and `:shutdown` |

  With `retry: :always` a "no" is about the last sending: one before it may have been handled.

  ## Starting a server that is missing

  `start: {Module, initial_state}` starts it where no owner is found, as `ensure_started_child` does and by
  the same claim rules, once for all callers on this node that ask. A server that is merely moving is
  reserved for its mover: the start is refused, and the caller is served by whichever comes first, the mover
  or a later start. So it never runs twice, and asking costs no more than a read of the store. Without
  `start:` a server without an owner is waited for.

  An answer of the host that means "later" does not end the call: a store that fails, nodes that are full,
  stopping or starting, another start or a deletion under way, an answer of a later version that this
  library does not know. It is asked again until `timeout`, and the error is then `{:start_failed, reason}`
  with the last answer; `:no_owner` if there was none yet. Where the host knows the process that holds the
  server's lock, but not as registered, the request is sent to that process.

  These answers end the call at once: `:ignore`, `{:bad_init_return, _}` or an exception of the server's own
  `init`; `:cordoned`, `:permanently_crashed`, `:not_found`; a stored state that cannot be read; a module
  that does not exist; arguments that the host refuses (`DurableHandoff.Host.Registry.start/4` has the whole
  table).
  """
  @spec call(atom(), term(), term(), keyword()) :: {:ok, reply :: term()} | {:error, Client.error()}
  def call(supervisor, key, request, opts \\ []), do: Client.call(supervisor, key, request, opts)

  @doc """
  Sends the server `key` a message as `GenServer.cast/2` does. Waits for an owner where there is none, at most
  `timeout`.

  `:ok` says that it was sent to the owner this node knows, no more: an owner that is stopping loses it. What
  must arrive is a `call/4`. Options are those of `call/4` but `retry`; so are the errors that say that
  nothing was handled.
  """
  @spec cast(atom(), term(), term(), keyword()) :: :ok | {:error, Client.error()}
  def cast(supervisor, key, message, opts \\ []), do: Client.cast(supervisor, key, message, opts)

  @doc """
  The process that runs the server `key`, as this node knows it; nil when there is none or it cannot be
  reached. Never waits.
  """
  @spec whereis(atom(), term()) :: pid() | nil
  def whereis(supervisor, key), do: Client.whereis(supervisor, key)

  @doc """
  Waits until the server `key` has an owner; its pid. Options are those of `call/4` but `retry`; so are the
  errors.
  """
  @spec await(atom(), term(), keyword()) :: {:ok, pid()} | {:error, Client.error()}
  def await(supervisor, key, opts \\ []), do: Client.await(supervisor, key, opts)
end
