defmodule HandoffDemo.Telemetry do
  @moduledoc """
  Sends the library's telemetry events to the driver: how each drain of this node ended, what decided, and how
  long callers waited.

  The library uses `:telemetry` only if it is loaded. If it is not, as with the stand-in, this module defines
  a `:telemetry` with the single function that the library calls.
  """

  alias HandoffDemo.Control

  @events [
    [:durable_handoff, :drain, :stop],
    [:durable_handoff, :shutdown, :stop],
    [:durable_handoff, :fallback],
    [:durable_handoff, :wait, :stop]
  ]

  @doc "Starts to send events to the driver. To be called before the library starts."
  @spec attach() :: :ok
  def attach do
    if Code.ensure_loaded?(:telemetry) do
      # The real DurableServer does not start this application itself.
      {:ok, _started} = Application.ensure_all_started(:telemetry)
      :ok = apply(:telemetry, :attach_many, [__MODULE__, @events, &__MODULE__.handle/4, nil])
    else
      make()
    end
  end

  @doc "The driver's form of an event. Other events are not sent."
  @spec handle([atom()], map(), map(), term()) :: :ok
  def handle([:durable_handoff, :drain, :stop], _measurements, %{report: report}, _config) do
    executor = if report.executor == :embedded, do: "embedded", else: "node"
    {at_us, ended} = {:os.system_time(:microsecond), Atom.to_string(report.ended)}
    not_stored = Map.get(report.left, :state_not_stored, 0)
    lost = length(report.executors_lost)
    Control.send_event({:drained, at_us, executor, report.moved, report.total, ended, not_stored, lost})
  end

  # How long the drain delayed the shutdown, and how long it was allowed to.
  def handle([:durable_handoff, :shutdown, :stop], %{duration: duration} = times, _metadata, _config) do
    drawn = times.deadline - (times.monotonic_time - duration)
    [took_us, drawn_us] = for time <- [duration, drawn], do: System.convert_time_unit(time, :native, :microsecond)
    Control.send_event({:shutdown, took_us, max(drawn_us, 0)})
  end

  def handle([:durable_handoff, :fallback], _measurements, %{reason: reason}, _config),
    do: Control.send_event({:fallback, inspect(reason)})

  # The event is raised in the calling client, which must not wait for the driver.
  def handle([:durable_handoff, :wait, :stop], %{waited: waited}, _metadata, _config),
    do: Control.event_soon({:waited, System.convert_time_unit(waited, :native, :microsecond)})

  def handle(_event, _measurements, _metadata, _config), do: :ok

  defp make do
    contents =
      quote do
        def execute(event, measurements, metadata),
          do: unquote(__MODULE__).handle(event, measurements, metadata, nil)
      end

    {:module, :telemetry, _binary, _result} = Module.create(:telemetry, contents, Macro.Env.location(__ENV__))
    :ok
  end
end
