defmodule DurableHandoff.Client do
  @moduledoc """
  Calls to durable servers that outlast a move: the process behind `DurableHandoff.call/4`, `cast/4` and
  `await/3`, and its limits.

  `DurableHandoff.Supervisor` starts it with its option `client:`. For a `DurableServer.Supervisor` that is
  already in a supervision tree, put one anywhere in the tree, best before it, so that callers are served
  while it stops:

      children = [
        {DurableHandoff.Client, supervisor: MyApp.Durable},
        {DurableServer.Supervisor, name: MyApp.Durable, prefix: "myapp/", backend: backend}
      ]

  The calls work without it too: each caller that has to wait then polls for the new owner several times a
  second, and nothing limits how many do.

  ## Options

  `:supervisor`, the name of the `DurableServer.Supervisor`, and

  #{DurableHandoff.Client.Limits.docs()}

  ## Guarantees

    * A request is sent to one process at a time. With `retry: :unhandled` it is sent again only when the
      process before cannot have handled it. What that rests on is in `DurableHandoff.call/4`.
    * A caller that waits is woken when the registry learns of the new owner; a thousand callers waiting for
      one key are one subscription.
    * Callers do not depend on the registry alone. The node that moves a server, or starts one that a
      shutdown left, knows the owner at once and sends it to the clients of all nodes that it is connected
      to, in batches. A registry that lags, or that speaks another version in a rolling deploy, then costs a
      caller nothing. Such a hint is only tried, where the registry names no living owner. It is kept for up
      to a minute after its last use, at most #{DurableHandoff.Client.Hints.max()} servers.
    * A reply that comes too late is dropped; it never reaches the caller's mailbox.
    * With the owner there, a call costs a lookup and a `GenServer.call`, and next to nothing else.
  """

  import DurableHandoff.Schema, only: [supervisor_name!: 2]

  alias DurableHandoff.Client.{Call, Limits, Request, Server}
  alias DurableHandoff.Host

  @type error :: Call.error()

  @doc "A child of a supervision tree; see above."
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
    supervisor |> supervisor_name!("DurableHandoff.whereis: the first argument") |> Host.Registry.owner(key)
  end
end
