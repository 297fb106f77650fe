defmodule DurableHandoff do
  @moduledoc """
  Moves durable servers to other nodes while they still run, instead of stopping them, when a node shuts down.

  Without it a node that shuts down stops its `DurableServer`s. Others find the permanent ones at their next sweep, up to a minute later,
  and the rest when somebody asks for them. With it the node first moves each server to a node that has room, and callers wait for
  a few round trips to the store.

      children = [
        {DurableHandoff.Supervisor,
         name: MyApp.Durable, prefix: "myapp/", backend: backend,
         handoff_on_shutdown: [timeout_ms: 30_000, max_concurrency: 50]}
      ]

  Everything but `handoff_on_shutdown` goes to `DurableServer.Supervisor` untouched, and every call keeps using it with the same name.
  For a supervisor that is already in your tree, see `DurableHandoff.Drainer`.

  ## Guarantees

    * A drain never makes things worse than no drain: a server that is not moved is left as it was, no reservation stays behind, and
      the existing graceful shutdown takes care of it.
    * A server is stopped here only when a target is known that is healthy, connected, not draining itself and has room.
    * The node never waits longer than `timeout_ms`, whatever fails.
    * Whatever fails is in the log, and in the report with its reason.

  ## What runs where

  ```text
  DurableHandoff.Supervisor
  ├── DurableServer.Supervisor      stopped second: its graceful shutdown stops what is left
  └── DurableHandoff.Drainer        stopped first: its terminate/2 drains
      ·  monitors
      DurableHandoff.Drain          one drain: snapshot, engine, report
      ·  monitors
      DurableHandoff.Attempt        one for each server on its way; outlives both if it must
  ```

  One drain, top to bottom: the Drainer starts a Drain; it marks the node draining, takes a `DurableHandoff.Snapshot` and gives it to the
  Rust engine (`DurableHandoff.Executor`); the engine says which server goes where now; a `DurableHandoff.Attempt` asks the host to move it
  (`DurableHandoff.Host`) and its outcome goes back to the engine; until all is settled or the time is up. Then everybody gets the
  `DurableHandoff.Report`.

  ## Options

  #{DurableHandoff.Options.docs()}

  `handoff_on_shutdown: true` takes all defaults; `false`, `nil` or no such option: no handoff. Which servers move, and which first, is
  described in `DurableHandoff.Policy`.

  ## Watching it

  Log lines at the start, every second and at the end; `status/1`; events (`DurableHandoff.Telemetry`).

  ## Limits

    * Marking a node draining cannot be undone. After `drain/2` the node starts no more servers until its supervisor is restarted.
    * The engine cannot be replaced in a running VM: a new version of this library takes effect with the next start of the node.
  """

  alias DurableHandoff.{Drain, Drainer, Host, Options, Plan, Report, Status}

  @type status :: %{
          supervisor: atom(),
          state: :idle | :draining | :drained | :failed,
          progress: nil | map(),
          report: nil | Report.t()
        }

  @doc """
  Drains `supervisor` on this node now and returns the report: for a pre-stop hook or an operator.

  `overrides` are options for this drain alone. A drain that is already running is waited for instead; its own options count. The
  node stays marked draining afterwards: this cannot be undone. A shutdown drains again what stayed or came since.

  Errors: `:no_drainer` (no `DurableHandoff.Drainer` runs for it here), `:host_down`, `:overdue` (only when the node shuts down meanwhile),
  `{:invalid, texts}` or `{:drain_failed, reason}`. Raises `ArgumentError` when an option is wrong.
  """
  @spec drain(atom(), keyword()) :: Drain.result() | {:error, :no_drainer | :overdue | {:drain_failed, term()}}
  def drain(supervisor, overrides \\ []) do
    case Status.read(supervisor) do
      nil -> {:error, :no_drainer}
      %{options: options} -> Drainer.drain(supervisor, Options.override!(options, overrides))
    end
  end

  @doc """
  What `drain/2` would do now: who would go where, who would not and why, and about how long it would take. Changes nothing.

  Works for every `DurableServer.Supervisor` on this node; one without a Drainer is planned with the default options.
  """
  @spec plan(atom(), keyword()) :: {:ok, Plan.t()} | {:error, :host_down | {:invalid, [String.t()]}}
  def plan(supervisor, overrides \\ []) do
    Host.ensure_loaded!()
    options = with %{options: options} <- Status.read(supervisor), do: options, else: (nil -> Options.new!(true))
    options = Options.override!(options, overrides)
    if Host.whereis(supervisor), do: Plan.make(supervisor, options), else: {:error, :host_down}
  end

  @doc """
  What `supervisor`'s drain is doing on this node. Answers during a shutdown too.

  `progress` is that of the current or the last drain, `report` that of the last one that ended.
  """
  @spec status(atom()) :: {:ok, status()} | {:error, :no_drainer}
  def status(supervisor) do
    case Status.read(supervisor) do
      nil -> {:error, :no_drainer}
      status -> {:ok, status |> Map.delete(:options) |> Map.put(:supervisor, supervisor)}
    end
  end
end
