defmodule DurableHandoff.Drainer do
  @moduledoc """
  Drains a supervisor when it is stopped.

  `DurableHandoff.Supervisor` starts one. For a `DurableServer.Supervisor` that is already in a supervision tree,
  put one right after it:

      children = [
        {DurableServer.Supervisor, name: MyApp.Durable, prefix: "myapp/", backend: backend},
        {DurableHandoff.Drainer, supervisor: MyApp.Durable, handoff_on_shutdown: [timeout_ms: 30_000]}
      ]

  A supervisor stops its children last to first, so the Drainer drains while everything before it still runs. A
  node whose supervisor has only a Drainer works as source and as target, but tells the other nodes neither its
  release nor its load between two drains.

  ## Guarantees

    * It delays a shutdown by at most `timeout_ms`, whatever fails, and does not crash because a drain did. With
      `shutdown_budget_ms` it leaves enough time for the graceful shutdown after it.
    * Only a shutdown drains. When a Drainer crashes, or is stopped for another reason, nothing moves.
    * One drain at a time. `DurableHandoff.drain/2` and a shutdown that find one running wait for it. A shutdown
      then drains what stayed, or was started since; and again, if servers have started during its own drain.
      Both end a rebalance, and a shutdown also a drain with a lower `max_concurrency`,
      `max_concurrency_per_target` or `max_per_second` than its own, or a higher `wait_for_target_ms`. They wait up to a
      second for moves in flight, a shutdown for at most a quarter of its time.
    * After `DurableHandoff.cancel/1` a drain ends as soon as the moves in flight have settled; one that waits behind
      a rebalance moves nothing. A shutdown starts no other one after it.

  ## Processes

  ```text
  Supervisor       started by start_link/1
  ├── Leftovers    unless `start_leftovers: false`; stopped last
  ├── Cordon       cordons this node, and takes that back
  ├── Drainer      one drain at a time, for callers and for the shutdown
  │   ├─ Storing   has the servers store their state, from SIGTERM on or when a drain starts
  │   └─ Drain     one drain. Neither is linked to the Drainer: they settle what they have begun
  ├── Watch        with the option `rebalance`: moves what is above this node's share when nothing changes any more
  └── Shutdown     stopped first: its terminate/2 asks the Drainer to drain, and waits
  ```

  Leftovers, Cordon and Watch are kept apart: one that crashes again and again is down for ten seconds at a time, and
  nothing else stops because of it.
  """

  alias DurableHandoff.{Apart, Clock, Cordon, Deadline, Drain, Host, Leftovers, Log, Native, Options, Schema}
  alias DurableHandoff.Drainer.{Announcement, Server, Shutdown}
  alias DurableHandoff.Rebalance.{Settings, Watch}

  @doc """
  Starts a Drainer. Options: `:supervisor`, the name of the `DurableServer.Supervisor`, and `:handoff_on_shutdown`
  (`DurableHandoff.Options`). Raises `ArgumentError` when one is wrong.
  """
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(arguments) do
    case arguments!(arguments) do
      {_supervisor, :disabled} ->
        :ignore

      {supervisor, options} ->
        Host.ensure_loaded!()
        Host.started!(supervisor)
        with {:error, error} <- Native.check(), do: raise(error)
        Host.Version.check!()
        Host.Version.announce(supervisor)
        warn_without_application(supervisor)

        leftovers =
          if options.start_leftovers, do: [Apart.child(Leftovers, {Leftovers, {supervisor, options}})], else: []

        work = %{prepare: fn -> prepare(supervisor) end, drain: &drain_for_shutdown(supervisor, &1)}

        rebalance = if options.rebalance, do: [watch(supervisor, options)], else: []

        # In this supervisor a child that crashes repeatedly stops Shutdown, which then drains. That is harmless
        # only if that child is the Server, without which nothing drains.
        children =
          leftovers ++
            [Apart.child(Cordon, {Cordon, supervisor}), {Server, {supervisor, options}}] ++
            rebalance ++ [{Shutdown, {supervisor, options, work}}]

        Supervisor.start_link(children, strategy: :one_for_one, name: :"#{supervisor}_handoff")
    end
  end

  defp watch(supervisor, options) do
    {drain, settings} = Options.rebalance(options, [])
    Apart.child(Watch, {Watch, {supervisor, settings.after_ms, fn -> rebalance(supervisor, drain, settings, true) end}})
  end

  # As a dependency with `runtime: false`, or in a release that leaves it out.
  defp warn_without_application(supervisor) do
    if Process.whereis(DurableHandoff.TopSupervisor) == nil do
      text =
        "the application :durable_handoff does not run: SIGTERM is not noticed, prepare_stop/0 marks nothing, and no " <>
          "Rust node can coordinate the drains of this node"

      Log.warning(:application_not_started, supervisor, text)
    end
  end

  @doc "A child of a supervision tree. Its supervisor gives it `timeout_ms` to drain."
  @spec child_spec(keyword()) :: Supervisor.child_spec()
  def child_spec(arguments) do
    {supervisor, options} = arguments!(arguments)
    timeout_ms = if options == :disabled, do: 0, else: options.timeout_ms

    %{
      id: {__MODULE__, supervisor},
      start: {__MODULE__, :start_link, [[supervisor: supervisor, handoff_on_shutdown: options]]},
      type: :supervisor,
      shutdown: Deadline.child_ms(timeout_ms, :outer)
    }
  end

  @doc false
  # Starts a drain and waits for it, or waits for the one that runs. `options` apply only to a drain that this
  # call starts.
  @spec drain(Host.name(), Options.t()) :: Drain.result() | {:error, :no_drainer | {:drain_failed, term()} | :overdue}
  def drain(supervisor, %Options{} = options), do: call(supervisor, {:drain, options})

  @doc false
  # Starts a drain and returns at once: `:started`, or `:joined` when one runs already.
  @spec start_drain(Host.name(), Options.t()) :: {:ok, :started | :joined} | {:error, :no_drainer}
  def start_drain(supervisor, %Options{} = options), do: call(supervisor, {:start_drain, options})

  @doc false
  # Moves what is above this node's share, or waits for the rebalance that runs. `await?: false`: returns at once.
  @spec rebalance(Host.name(), Options.t(), Settings.t(), await? :: boolean()) ::
          Drain.result()
          | {:ok, :started | :joined}
          | {:error, :draining | :cordoned | :stopping | :overdue | :no_drainer | {:drain_failed, term()}}
  def rebalance(supervisor, %Options{} = options, settings, await?),
    do: call(supervisor, {:rebalance, options, settings, await?})

  @doc false
  # Ends the drain or rebalance that runs, and a drain that waits behind a rebalance.
  @spec cancel(Host.name()) :: :ok | {:error, :not_draining | :no_drainer}
  def cancel(supervisor), do: call(supervisor, :cancel)

  @doc false
  # Makes all servers store their state because this node is about to stop. Returns at once.
  @spec prepare(Host.name()) :: :ok
  def prepare(supervisor), do: GenServer.cast(Server.name(supervisor), :prepare)

  # Returns when the shutdown may continue, at `deadline` at the latest.
  defp drain_for_shutdown(supervisor, deadline) do
    GenServer.call(Server.name(supervisor), {:shutdown, deadline}, Deadline.answer_ms(deadline, Clock.now_us()))
  catch
    # It hangs, or a busy machine keeps its own timer waiting.
    :exit, {:timeout, {GenServer, :call, _arguments}} ->
      Announcement.ended(supervisor, {:error, :overdue}, true)

    :exit, {reason, {GenServer, :call, _arguments}} ->
      Announcement.ended(supervisor, {:error, {:drain_failed, reason}}, true)
  end

  defp call(supervisor, request) do
    # No timeout: the Drainer never blocks, and after a timeout it would be unknown whether it handled the
    # request.
    GenServer.call(Server.name(supervisor), request, :infinity)
  catch
    :exit, {_reason, {GenServer, :call, _arguments}} -> {:error, :no_drainer}
  end

  defp arguments!(arguments) do
    expected = "[supervisor: MyApp.Durable, handoff_on_shutdown: true]"
    Schema.keyword!(arguments, "DurableHandoff.Drainer", expected)

    case Keyword.validate(arguments, [:supervisor, handoff_on_shutdown: true]) do
      {:ok, arguments} ->
        {Schema.supervisor_name!(arguments[:supervisor], "DurableHandoff.Drainer: :supervisor"),
         Options.new!(arguments[:handoff_on_shutdown])}

      {:error, unknown} ->
        raise ArgumentError,
              "DurableHandoff.Drainer got unknown options #{inspect(unknown)}, expected :supervisor and :handoff_on_shutdown"
    end
  end
end
