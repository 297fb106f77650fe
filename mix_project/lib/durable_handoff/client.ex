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

  ## Guarantees

    * A request is sent to one process at a time. With `retry: :unhandled` it is sent again only when the
      process before cannot have handled it (`DurableHandoff.call/4`).
    * Callers are woken when the registry learns of the new owner. A thousand callers of one key need one
      subscription.
    * Callers do not depend on the registry alone. The node that moves or starts a server sends its new owner to
      the clients on all connected nodes, in batches. So a registry that lags, or whose versions do not match
      during a rolling deploy, delays no caller. A client uses such a hint only while the registry has no living
      owner. It keeps at most #{DurableHandoff.Client.Hints.max()} hints, each for a minute after its last use.
    * A reply that comes too late is dropped. It never reaches the caller's mailbox.
    * With the owner in place, a call costs a lookup and a `GenServer.call`.
  """

  import DurableHandoff.Schema, only: [server_key!: 2, supervisor_name!: 2]

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
    unless Keyword.keyword?(arguments) do
      raise ArgumentError,
            "DurableHandoff.Client got #{inspect(arguments)}, expected options such as [supervisor: MyApp.Durable]"
    end

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
