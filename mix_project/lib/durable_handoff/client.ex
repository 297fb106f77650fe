defmodule DurableHandoff.Client do
  @moduledoc """
  The process in which `DurableHandoff.call/4`, `cast/4` and `await/3` wait for the new owner of a server.

  `DurableHandoff.Supervisor` starts it, with its option `client:`. For a `DurableServer.Supervisor` that is
  already in a supervision tree, put one anywhere in the tree, best before it, so that callers can still wait
  while it stops:

      children = [
        {DurableHandoff.Client, supervisor: MyApp.Durable},
        {DurableServer.Supervisor, name: MyApp.Durable, prefix: "myapp/", backend: backend}
      ]

  The calls work without it too. Each caller that has to wait then polls for the new owner several times a
  second, and their number has no limit.

  ## Options

  `:supervisor`, the name of the `DurableServer.Supervisor`, and

  #{DurableHandoff.Client.Limits.docs()}

  ## When a request is sent again

  With `retry: :unhandled`, the default, a request is sent again only if it cannot have been handled:

  | what happened to the request | `:unhandled` | `:always` | `:never` |
  |---|---|---|---|
  | not sent: no owner, or no connection to it | waits | waits | waits |
  | the owner had ended before it arrived (`:noproc`) | again | again | error |
  | the owner was stopped without replying (`:normal`, `:shutdown`) | again | again | error |
  | the owner did not start (`:init_failed`, `:ignored`) | again | again | error |
  | the owner ended for another reason without replying | error | again | error |
  | the connection was lost after sending | error | again | error |
  | no reply in time | error | error | error |

  A server that was told to stop handles no further message from its mailbox, and a reply that it has sent
  arrives before the message about its end. So these exit reasons of the owner prove that a request without a
  reply was not handled:

    * `:normal` and `:shutdown`: a move, the graceful shutdown, `terminate_child`,
      `terminate_child_permanent`, a cordon.
    * `{:shutdown, {:durable, {:init_failed, _}}}` and `{:shutdown, {:durable, :ignored}}`: a failed start.

  These exit reasons prove nothing, because a callback may have handled the request before:

    * `{:shutdown, {:durable, {:fatal_exit, _}}}`: the server lost its stored object or its registration, or a
      `:sync` failed (from DurableServer 0.1.5 on).
    * `{:shutdown, :normal}`, `{:shutdown, :permanent}`, `{:shutdown, :delete}`: a callback stopped the server,
      or it was deleted.
    * `{:shutdown, _}` of a later version, `{:error, _}`, an exception, `:killed` and all others.

  So no request is handled twice, **if the server replies inside its callback**: with `{:reply, ...}`,
  `{:stop, reason, reply, state}` or `GenServer.reply/2` before the callback returns. There are two exceptions.
  Both look like a request that was never handled:

    * A server that takes a request (`{:noreply, ...}`), is stopped, and would have replied later.
    * A callback that ends the server with `:normal` and does not reply: `{:stop, :normal, state}`,
      `{:stop, :delete, state}`, `{:stop, :permanent, state}`, or `exit/1` with `:normal`, `:shutdown` or
      `:noproc`. A move gives the same reason. Reply (`{:stop, :normal, reply, state}`), or use
      `{:stop, {:shutdown, :normal}, state}`, where your version has it.

  For such requests use `retry: :never`, or make them safe to repeat. With `start:`, a server that ends each time is
  started again after pauses that grow to a second.

  ## Starting a server that is missing

  `start: {Module, initial_state}` starts the server if it has no owner, as `ensure_started_child` does. It is
  started once for all waiting callers on this node. While a server moves it is reserved: DurableServer
  refuses the start, and the caller waits for the new owner. So it never runs twice. Without `start:` the call
  waits until another process starts the server.

  Some answers of DurableServer mean "not now": the store fails, nodes are full, stopping or starting, another
  start or a deletion is in progress, or a later version answers something unknown. The start is then repeated
  until `timeout`. The error is `{:start_failed, reason}` with the last answer, or `:no_owner` if there was none.

  These answers end the call at once: `:ignore`, `{:bad_init_return, _}` or an exception of the server's own
  `init`; `:cordoned`, `:permanently_crashed`, `:not_found`; a stored state that cannot be read; a module that
  does not exist; arguments that DurableServer refuses. `:cordoned` and `:permanently_crashed` end all calls of that key.
  The others end only the calls that gave the same module; that of another caller who waits is tried next.

  ## Guarantees

    * A request is sent to one process at a time.
    * Callers are woken when the registry learns of the new owner. A thousand callers of one key need one
      subscription.
    * Callers do not depend on the registry alone. The node that moves or starts a server sends its new owner to
      the clients on all connected nodes, in batches. So a registry that lags, or whose versions do not match
      during a rolling deploy, delays no caller. A client uses such a hint only while the registry has no living
      owner. It keeps at most #{DurableHandoff.Client.Hints.max()} hints, each for at most a minute after its last use.
    * A reply that comes too late is dropped. It never reaches the caller's mailbox.
    * With the owner in place, a call costs a lookup and a `GenServer.call`.
  """

  import DurableHandoff.Schema, only: [keyword!: 3, server_key!: 2, supervisor_name!: 2]

  alias DurableHandoff.Client.{Call, Limits, Request, Server}
  alias DurableHandoff.Host

  @typedoc "See \"Errors\" of `DurableHandoff.call/4`."
  @type error ::
          :timeout
          | :no_owner
          | :noproc
          | :noconnection
          | :supervisor_not_running
          | :calling_self
          | {:overloaded, %{limit: atom(), max: pos_integer()}}
          | {:start_failed, term()}
          | (exit_reason :: term())

  @doc "A child of a supervision tree, see above."
  @spec child_spec(keyword()) :: Supervisor.child_spec()
  def child_spec(arguments) do
    keyword!(arguments, "DurableHandoff.Client", "options such as [supervisor: MyApp.Durable]")
    {supervisor, limits} = Keyword.pop(arguments, :supervisor)
    supervisor_name!(supervisor, "DurableHandoff.Client: :supervisor")
    server = %{supervisor: supervisor, limits: Limits.new!(limits), registry: Host.Registry}
    %{id: {__MODULE__, supervisor}, start: {Server, :start_link, [server]}}
  end

  @doc false
  @spec call(module(), Host.name(), term(), term(), keyword()) :: {:ok, term()} | {:error, error()}
  def call(registry \\ Host.Registry, supervisor, key, request, given) do
    registry |> Call.new(supervisor, key, :call, given) |> Call.run(&Request.call(&1, request, &2))
  end

  @doc false
  @spec cast(module(), Host.name(), term(), term(), keyword()) :: :ok | {:error, error()}
  def cast(registry \\ Host.Registry, supervisor, key, message, given) do
    call = Call.new(registry, supervisor, key, :cast, given)
    with {:ok, :ok} <- Call.run(call, fn pid, _left_ms -> Request.cast(pid, message) end), do: :ok
  end

  @doc false
  @spec await(module(), Host.name(), term(), keyword()) :: {:ok, pid()} | {:error, error()}
  def await(registry \\ Host.Registry, supervisor, key, given) do
    registry |> Call.new(supervisor, key, :await, given) |> Call.run(fn pid, _left_ms -> {:ok, pid} end)
  end

  @doc false
  @spec whereis(Host.name(), term()) :: pid() | nil
  def whereis(supervisor, key) do
    supervisor_name!(supervisor, "DurableHandoff.whereis: the first argument")
    Host.Registry.owner(supervisor, server_key!(key, "DurableHandoff.whereis: the second argument"))
  end
end
