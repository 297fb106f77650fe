defmodule DurableHandoff.Supervisor do
  @moduledoc """
  A `DurableServer.Supervisor` that moves its servers to other nodes when it is stopped.

      {DurableHandoff.Supervisor,
       name: MyApp.Durable, prefix: "myapp/", backend: backend,
       handoff_on_shutdown: [timeout_ms: 30_000]}

  Its own options are `handoff_on_shutdown` (`DurableHandoff.Options`) and `client` (`DurableHandoff.Client`). It
  passes all others to `DurableServer.Supervisor` as they are; only `heartbeat_meta` gets one more key,
  `"durable_handoff"`. Your calls keep using `DurableServer.Supervisor`
  and the same name.

  ```text
  DurableHandoff.Supervisor        one_for_one
  ├── Supervisor
  │   └── DurableHandoff.Client    stopped last: calls from this node can wait for new owners
  ├── DurableServer.Supervisor     unchanged; stopped second: its graceful shutdown stops the rest
  └── Supervisor                   keeps crashes of these two away from the others
      ├── Leftovers                starts what other nodes could not move in time
      └── DurableHandoff.Drainer   stopped first, and drains
  ```

  Guarantees:

    * Without `handoff_on_shutdown`, or with `false`, it starts only a `DurableServer.Supervisor` and a
      `DurableHandoff.Client`: no Drainer, nothing added to heartbeats.
    * A crash in this library does not stop DurableServer's supervisor.
    * A start fails only with wrong options, without DurableServer, or without the engine's library. The error says
      what to do.
  """

  use Supervisor

  alias DurableHandoff.{Apart, Client, Drainer, Heartbeat, Host, Native, Options, Schema}

  @doc """
  Starts the supervisor. Raises `ArgumentError` when an option is wrong. Returns
  `{:error, {:already_started, pid}}` when a supervisor of that name already runs, whatever started it.
  """
  @spec start_link(keyword()) :: Supervisor.on_start()
  def start_link(arguments) do
    keyword!(arguments)
    {handoff, host_options} = Keyword.pop(arguments, :handoff_on_shutdown)
    {client, host_options} = Keyword.pop(host_options, :client, [])
    options = Options.new!(handoff)
    limits = Client.Limits.new!(client)
    not_misspelt!(host_options)
    Host.ensure_loaded!()
    if options != :disabled, do: check!()
    name = Schema.supervisor_name!(host_options[:name], "DurableHandoff.Supervisor: :name")

    case Host.whereis(name) do
      nil -> Supervisor.start_link(__MODULE__, {name, host_options, options, limits})
      running -> {:error, {:already_started, running}}
    end
  end

  defp check! do
    with {:error, error} <- Native.check(), do: raise(error)
    Host.Version.check!()
  end

  @doc "A child of the application's supervisor. It has as much time as it needs to stop."
  @spec child_spec(keyword()) :: Supervisor.child_spec()
  def child_spec(arguments) do
    keyword!(arguments)
    %{id: {__MODULE__, arguments[:name]}, start: {__MODULE__, :start_link, [arguments]}, type: :supervisor}
  end

  @impl true
  def init({name, host_options, :disabled, limits}) do
    Supervisor.init([client(name, limits), Host.child_spec(host_options)], strategy: :one_for_one)
  end

  def init({name, host_options, options, limits}) do
    drainer = Drainer.child_spec(supervisor: name, handoff_on_shutdown: options)

    Supervisor.init(
      [
        client(name, limits),
        host_options |> Heartbeat.add(options.generation) |> Host.child_spec(),
        %{drainer | id: Drainer} |> Map.put(:restart, :temporary)
      ],
      strategy: :one_for_one
    )
  end

  defp client(name, limits),
    do: Apart.child(Client, {Client, [supervisor: name] ++ Map.to_list(Map.from_struct(limits))})

  defp keyword!(arguments) do
    example = ~S([name: MyApp.Durable, prefix: "myapp/", backend: {...}, handoff_on_shutdown: true])
    expected = "the options of DurableServer.Supervisor such as " <> example
    Schema.keyword!(arguments, "DurableHandoff.Supervisor", expected)
  end

  # DurableServer refuses a name it does not know, with a list of its own options.
  defp not_misspelt!(host_options) do
    for {name, _value} <- host_options, Schema.similar?(name, :handoff_on_shutdown) do
      raise ArgumentError,
            "DurableHandoff.Supervisor: unknown option #{inspect(name)}, did you mean :handoff_on_shutdown?"
    end
  end
end
