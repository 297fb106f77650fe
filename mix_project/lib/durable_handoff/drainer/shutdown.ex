defmodule DurableHandoff.Drainer.Shutdown do
  @moduledoc false
  # The child of a Drainer's supervisor that is stopped first. Its terminate/2 has the Drainer drain, and
  # waits. The Drainer is a GenServer and continues to answer meanwhile.

  use GenServer

  alias DurableHandoff.{Budget, Clock, Deadline, Drain, Host, Log, Options, Telemetry}
  alias DurableHandoff.Stopping.Moment

  # One conditional write of an object store in the same region.
  @assumed_write_ms 50

  # `prepare`: makes the servers store their state, and returns at once. `drain`: drains, and returns at the
  # given deadline at the latest.
  @type work :: %{prepare: (() -> :ok), drain: (Deadline.t() -> :ok)}

  @spec child_spec({Host.name(), Options.t(), work()}) :: Supervisor.child_spec()
  def child_spec({_supervisor, options, _work} = arguments) do
    %{
      id: __MODULE__,
      start: {GenServer, :start_link, [__MODULE__, arguments]},
      shutdown: Deadline.child_ms(options.timeout_ms, :inner)
    }
  end

  @impl true
  def init({supervisor, options, _work} = arguments) do
    Process.flag(:trap_exit, true)
    announce_budget(supervisor, options)
    {:ok, arguments}
  end

  # The children that stop before this one are started after it. Their supervisors answer when all are
  # started.
  defp announce_budget(supervisor, options) do
    {shutdown, ancestors} = {self(), Process.get(:"$ancestors", [])}

    :proc_lib.spawn(fn ->
      {opening, warning} = Budget.lines(supervisor, options, Budget.before_ms(shutdown, ancestors))
      Log.info(:handoff_on, supervisor, opening)
      if warning, do: Log.warning(:budget_too_small, supervisor, warning)
    end)
  end

  @impl true
  def terminate(reason, {supervisor, options, work}) do
    if Drain.shutdown?(reason) do
      begin_us = Clock.now_us()
      work.prepare.()
      deadline = deadline(supervisor, options, begin_us)
      work.drain.(deadline)
      Telemetry.shutdown_stop(supervisor, deadline, Clock.now_us())
    end
  end

  defp deadline(supervisor, options, begin_us) do
    deadline =
      Deadline.shutdown(begin_us, %{
        timeout_ms: options.timeout_ms,
        budget_ms: options.shutdown_budget_ms,
        noted_us: Moment.noted_us(),
        graceful_ms: Host.graceful_shutdown_ms(supervisor),
        need_ms: need_ms(supervisor, options)
      })

    with %{} = cut <- deadline.cut,
         do: Log.warning(:drain_cut, supervisor, Budget.cut(cut), cut)

    deadline
  end

  defp need_ms(_supervisor, %{shutdown_budget_ms: nil}), do: 0

  defp need_ms(supervisor, _options),
    do: Deadline.graceful_need_ms(Host.count(supervisor), Host.graceful_concurrency(supervisor), @assumed_write_ms)
end
