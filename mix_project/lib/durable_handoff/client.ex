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

  The calls work without it too: each caller that has to wait then looks for the new owner by itself,
  several times a second, and nothing limits how many do.

  ## Options

  `:supervisor`, the name of the `DurableServer.Supervisor`, and

  #{DurableHandoff.Client.Limits.docs()}

  ## Guarantees

    * A request is sent to one process at a time, and with `retry: :unhandled` only ever again when the one
      before cannot have handled it. What that rests on is in `DurableHandoff.call/4`.
    * A caller that waits is woken when the registry learns of the new owner; a thousand callers waiting for
      one key are one subscription.
    * Callers do not depend on the registry alone. The node that moves a server, or starts one that a
      shutdown left, knows the owner at once and tells the clients of all nodes that it is connected to, in
      batches. A registry that lags, or that speaks another version in a rolling deploy, then costs a caller
      nothing. What was told is only tried, where the registry names no living owner; it is kept for up to a
      minute after its last use, at most #{DurableHandoff.Client.Hints.max()} servers.
    * A reply that comes too late is dropped; it never reaches the caller's mailbox.
    * With the owner there, a call costs a lookup and a `GenServer.call`, and next to nothing else.
  """

  alias DurableHandoff.Client.{Limits, Options, Request, Wait, Waiting}
  alias DurableHandoff.{Host, Telemetry}

  # Dead processes that a late registry may still name. Each costs one useless message; more than a few in one
  # call mean a server that ends as soon as it starts.
  @remembered 8

  @type error ::
          :timeout
          | :no_owner
          | :noproc
          | :noconnection
          | :host_down
          | :calling_self
          | {:overloaded, %{limit: atom(), max: pos_integer()}}
          | {:start_failed, term()}
          | (exit_reason :: term())

  @doc "A child of a supervision tree; see above."
  @spec child_spec(keyword()) :: Supervisor.child_spec()
  def child_spec(arguments) do
    unless Keyword.keyword?(arguments) do
      raise ArgumentError,
            "DurableHandoff.Client got #{inspect(arguments)}, expected options such as [supervisor: MyApp.Durable]"
    end

    {supervisor, limits} = Keyword.pop(arguments, :supervisor)
    name!(supervisor, "DurableHandoff.Client: :supervisor")
    waiting = %{supervisor: supervisor, limits: Limits.new!(limits), registry: Host.Registry}
    %{id: {__MODULE__, supervisor}, start: {Waiting, :start_link, [waiting]}}
  end

  @doc false
  @spec call(module(), Host.name(), term(), term(), keyword()) :: {:ok, term()} | {:error, error()}
  def call(registry \\ Host.Registry, supervisor, key, request, given) do
    run(new(registry, supervisor, key, :call, given), &Request.call(&1, request, &2))
  end

  @doc false
  @spec cast(module(), Host.name(), term(), term(), keyword()) :: :ok | {:error, error()}
  def cast(registry \\ Host.Registry, supervisor, key, message, given) do
    with {:ok, :ok} <-
           run(new(registry, supervisor, key, :cast, given), fn pid, _left -> Request.cast(pid, message) end),
         do: :ok
  end

  @doc false
  @spec await(module(), Host.name(), term(), keyword()) :: {:ok, pid()} | {:error, error()}
  def await(registry \\ Host.Registry, supervisor, key, given) do
    run(new(registry, supervisor, key, :await, given), fn pid, _left -> {:ok, pid} end)
  end

  @doc false
  @spec whereis(Host.name(), term()) :: pid() | nil
  def whereis(supervisor, key) do
    name!(supervisor, "DurableHandoff.whereis: the first argument")
    Host.Registry.owner(supervisor, key)
  end

  defp name!(name, _what) when is_atom(name) and name not in [nil, true, false], do: :ok

  defp name!(other, what) do
    hint = if is_pid(other), do: ". A server is found by its key; for its pid there is GenServer", else: ""
    raise ArgumentError, "#{what} got #{inspect(other)}, expected the name of a DurableServer.Supervisor" <> hint
  end

  defp new(registry, supervisor, key, operation, given) do
    name!(supervisor, "DurableHandoff.#{operation}: the first argument")
    options = Options.read!(given, operation)
    began = System.monotonic_time()

    %{
      registry: registry,
      supervisor: supervisor,
      key: key,
      operation: operation,
      retry: options.retry,
      start: options.start,
      began: began,
      deadline: deadline(began, options.timeout),
      dead: [],
      unanswered: 0,
      waited: nil
    }
  end

  defp deadline(_began, :infinity), do: :infinity
  defp deadline(began, timeout), do: System.convert_time_unit(began, :native, :millisecond) + timeout

  # The owner this node knows of; whatever is not an answer from it is dealt with from there.
  defp run(client, send) do
    case client.registry.owner(client.supervisor, client.key) do
      nil -> wait(client, send)
      pid -> attempt(client, pid, send)
    end
  end

  defp attempt(client, pid, send) do
    case send.(pid, Wait.left_ms(client)) do
      {:ok, reply} -> finish(client, {:ok, reply})
      # Nothing was sent, so this is no sending again, whatever `retry` is.
      :unreachable -> wait(client, send)
      {:failed, reason} -> finish(unanswered(client), {:error, reason})
      outcome -> client |> unanswered() |> again(pid, outcome, send)
    end
  end

  defp again(client, pid, {kind, reason}, send) do
    if again?(client.retry, kind),
      do: client |> remember(kind, pid) |> wait(send),
      else: finish(client, {:error, reason})
  end

  defp again?(:always, _kind), do: true
  defp again?(:unhandled, kind), do: kind == :unhandled
  defp again?(:never, _kind), do: false

  # A process behind a lost connection may well live on, and be the owner still.
  defp remember(client, :lost, _pid), do: client
  defp remember(client, _ended, pid), do: %{client | dead: [pid | Enum.take(client.dead, @remembered - 1)]}

  defp wait(client, send) do
    from = System.monotonic_time()
    result = Wait.for_owner(client)
    client = %{client | waited: (client.waited || 0) + System.monotonic_time() - from}

    case result do
      {:ok, pid} -> attempt(client, pid, send)
      {:error, reason} -> finish(client, {:error, reason})
    end
  end

  defp unanswered(client), do: %{client | unanswered: client.unanswered + 1}

  defp finish(%{waited: nil}, result), do: result

  defp finish(%{waited: waited, began: began} = client, result) do
    Telemetry.waited(client, %{duration: System.monotonic_time() - began, waited: waited}, result)
    result
  end
end
