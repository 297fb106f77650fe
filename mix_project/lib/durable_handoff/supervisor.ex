defmodule DurableHandoff.Supervisor do
  @moduledoc """
  A `DurableServer.Supervisor` that hands its servers over when it is stopped.

      {DurableHandoff.Supervisor,
       name: MyApp.Durable, prefix: "myapp/", backend: backend,
       handoff_on_shutdown: [timeout_ms: 30_000]}

  Takes `handoff_on_shutdown` (`DurableHandoff.Options`) out of its options and passes all others on as they are. Every call goes on
  using `DurableServer.Supervisor` and the same name.

  ```text
  DurableHandoff.Supervisor        one_for_one
  ├── DurableServer.Supervisor     unchanged; stopped second, its graceful shutdown stops what is left
  └── Supervisor                   so that a Drainer that keeps crashing takes nothing else with it
      └── DurableHandoff.Drainer   stopped first, and drains
  ```

  Guarantees:

    * Without `handoff_on_shutdown`, or with `false`, this is a `DurableServer.Supervisor` and nothing else: no Drainer, no addition to
      its heartbeats.
    * The host's life does not depend on ours: only a start with wrong options, without DurableServer or without the engine fails, and
      says what to do.
  """

  use Supervisor

  alias DurableHandoff.{Drainer, Heartbeat, Host, Native, Options}

  @doc "Starts both. Raises `ArgumentError` when an option is wrong."
  @spec start_link(keyword()) :: Supervisor.on_start()
  def start_link(arguments) do
    {handoff, host_options} = Keyword.pop(arguments, :handoff_on_shutdown)
    options = Options.new!(handoff)
    Host.ensure_loaded!()
    with %Options{} <- options, {:error, error} <- Native.check(), do: raise(error)
    Supervisor.start_link(__MODULE__, {name!(host_options), host_options, options})
  end

  @doc "The child of the application's supervisor. It may take as long as it needs to stop."
  @spec child_spec(keyword()) :: Supervisor.child_spec()
  def child_spec(arguments) do
    %{id: {__MODULE__, arguments[:name]}, start: {__MODULE__, :start_link, [arguments]}, type: :supervisor}
  end

  @impl true
  def init({_name, host_options, :disabled}) do
    Supervisor.init([Host.child_spec(host_options)], strategy: :one_for_one)
  end

  def init({name, host_options, options}) do
    drainer = {Drainer, supervisor: name, handoff_on_shutdown: options}

    Supervisor.init(
      [
        host_options |> Heartbeat.add(options.generation) |> Host.child_spec(),
        %{
          id: Drainer,
          start: {Supervisor, :start_link, [[drainer], [strategy: :one_for_one]]},
          type: :supervisor,
          restart: :temporary
        }
      ],
      strategy: :one_for_one
    )
  end

  defp name!(host_options) do
    case Keyword.fetch(host_options, :name) do
      {:ok, name} when is_atom(name) and name not in [nil, true, false] ->
        name

      other ->
        got = with {:ok, name} <- other, do: name, else: (:error -> nil)

        raise ArgumentError,
              "DurableHandoff.Supervisor: :name got #{inspect(got)}, expected an atom such as MyApp.Durable"
    end
  end
end
