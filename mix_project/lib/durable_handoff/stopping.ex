defmodule DurableHandoff.Stopping do
  @moduledoc false
  # Notices as early as possible that this VM goes down, and tells the other nodes at once.
  #
  # Without this process a node would mark itself only when its Drainer is told to stop. Before that, a
  # Phoenix endpoint may drain its connections for half a minute, in which other stopping nodes would move
  # their servers here.
  #
  # A VM counts as going down, for good, after one of these:
  #
  #   * SIGTERM. A handler is added beside OTP's own; it runs first, does not wait, and changes nothing about
  #     what other handlers do. `config :durable_handoff, listen_to_sigterm: false` leaves it out.
  #   * `prepare/0` (`DurableHandoff.prepare_stop/0`), for platforms that stop a node in another way.
  #   * `:init.stop/0`, `System.stop/1`, `bin/my_app stop`: noticed within 250 ms.
  #
  # Then, within a few milliseconds:
  #
  #   * The moment is noted (`DurableHandoff.Stopping.Moment`; `shutdown_budget_ms` counts from it), and every
  #     answer to other nodes (`DurableHandoff.Host.Count`) says so.
  #   * For every supervisor with a Drainer, the servers begin to store their state, as many at a time as the
  #     graceful shutdown stops (`DurableHandoff.Drain.Storing`). The time that other children take to stop is
  #     time for this.
  #   * Every supervisor with a Drainer marks this node draining, all at once and each within five seconds.
  #
  # No server is stopped.

  use GenServer

  alias DurableHandoff.{Deadline, Drainer, Host, Log, Status}
  alias DurableHandoff.Stopping.{Moment, Signal}

  @look_ms 250
  # DurableServer has a timeout of its own; this limit is for when it hangs anyway.
  @patience_ms 500

  @doc "Started by the application."
  @spec start_link(term()) :: GenServer.on_start()
  def start_link(_arguments), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc """
  Notes that this VM goes down, has all servers store their state, and marks all supervisors. Returns when
  they are marked, after about five seconds at the latest.

  Errors: `{:not_marked, %{supervisor => reason}}`: these are not marked yet; their drains or their next
  heartbeats will mark them. `:application_not_started`: without the application it is unknown which supervisors
  exist. The moment is still noted.
  """
  @spec prepare() :: :ok | {:error, :application_not_started | {:not_marked, %{Host.name() => term()}}}
  def prepare do
    Moment.note()
    if Status.listed?(), do: prepare(Status.supervisors()), else: {:error, :application_not_started}
  end

  defp prepare(names) do
    Enum.each(names, &Drainer.prepare/1)

    failed =
      names
      |> Task.async_stream(&mark/1,
        max_concurrency: max(length(names), 1),
        timeout: Deadline.mark_ms() + @patience_ms,
        on_timeout: :kill_task
      )
      |> Enum.zip(names)
      |> Enum.flat_map(fn
        {{:ok, :ok}, _name} -> []
        {{:ok, {:error, reason}}, name} -> [{name, reason}]
        {{:exit, reason}, name} -> [{name, reason}]
      end)

    for {name, reason} <- failed do
      shown = inspect(reason, limit: 10, printable_limit: 200)
      text = "could not mark this node as draining; its drain or its next heartbeat will do it: #{shown}"
      Log.warning(:mark_failed, name, text, reason: reason)
    end

    if failed == [], do: :ok, else: {:error, {:not_marked, Map.new(failed)}}
  end

  defp mark(name) do
    Status.put_marked(name)
    Host.Mark.stop(name, Deadline.mark_ms())
  end

  @impl true
  def init([]) do
    if Application.get_env(:durable_handoff, :listen_to_sigterm, true), do: listen()
    look_later()
    {:ok, nil}
  end

  @impl true
  def handle_info(:sigterm, state), do: {:noreply, prepare_aside(state)}

  def handle_info(:look, state) do
    if Moment.init_stops?() do
      Moment.note()
      {:noreply, prepare_aside(state)}
    else
      look_later()
      {:noreply, state}
    end
  end

  # An application that replaces all handlers of the signal removes this one; that is its choice.
  def handle_info({:gen_event_EXIT, {Signal, _id}, _reason}, state), do: {:noreply, state}

  def handle_info(unexpected, state) do
    Log.unexpected(nil, unexpected)
    {:noreply, state}
  end

  # Marking runs in a process of its own, once.
  defp prepare_aside(:preparing), do: :preparing

  defp prepare_aside(nil) do
    spawn(&prepare/0)
    :preparing
  end

  defp look_later, do: Process.send_after(self(), :look, @look_ms)

  defp listen do
    with {:error, reason} <- :gen_event.add_sup_handler(:erl_signal_server, {Signal, __MODULE__}, self()) do
      Log.warning(:no_sigterm_handler, nil, "could not install the SIGTERM handler: #{inspect(reason, limit: 10)}",
        reason: reason
      )
    end
  catch
    # This VM handles no signals.
    :exit, _reason -> :ok
  end
end
