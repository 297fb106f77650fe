defmodule DurableHandoff.Leftovers.Announcement do
  @moduledoc false
  # Log lines and events about leftovers, at the source and at a node that starts them.

  alias DurableHandoff.{Clock, Host, Log, Telemetry}
  alias DurableHandoff.Leftovers.Adoption

  @doc "Logs how many of the `left` servers of a drain each of `targets` has accepted."
  @spec offered(Host.name(), pos_integer(), %{String.t() => pos_integer()}) :: :ok
  def offered(supervisor, left, targets) do
    accepted = targets |> Map.values() |> Enum.sum()
    to = targets |> Enum.sort() |> Enum.map_join(", ", fn {name, count} -> "#{name} #{count}" end)
    where = if accepted > 0, do: ": #{to}; they start there once they are stopped here", else: ""
    text = "other nodes accepted #{accepted} of #{left} servers that were not moved#{where}"
    level = if accepted == left, do: :info, else: :warning
    Log.write(level, :leftovers_offered, supervisor, text, left: left, accepted: accepted, targets: targets)
    Telemetry.leftovers_offer(supervisor, left, targets)
  end

  @doc "Logs that the process that offers the servers has crashed."
  @spec not_offered(Host.name(), term()) :: :ok
  def not_offered(supervisor, reason) do
    text = "servers that were not moved could not be offered to other nodes: #{inspect(reason, limit: 20)}"
    Log.error(:leftovers_not_offered, supervisor, text, reason: reason)
  end

  @doc "Logs that all earlier receivers are gone, the last of them on `node`."
  @spec taken_over(Host.name(), Adoption.t(), node()) :: :ok
  def taken_over(supervisor, %{source: source, pending: pending}, node) do
    text = "taking over #{length(pending)} servers that #{source} left from #{node}"
    Log.info(:leftovers_taken_over, supervisor, text, source: source, servers: length(pending))
  end

  @doc "Logs that the receiver gets no events from the registry."
  @spec poll_only(Host.name(), term()) :: :ok
  def poll_only(supervisor, reason) do
    text = "could not subscribe to the registry, polling only: #{inspect(reason, limit: 10)}"
    Log.warning(:leftovers_poll_only, supervisor, text, reason: reason)
  end

  @doc "Logs that all servers of an adoption are settled, and sends the event."
  @spec ended(Host.name(), Adoption.t()) :: :ok
  def ended(supervisor, adoption) do
    level = if adoption.dropped == %{}, do: :info, else: :warning
    fields = Map.take(adoption, [:source, :total, :started, :running, :forwarded, :dropped])
    Log.write(level, :leftovers_ended, supervisor, to_string(adoption), fields)
    Telemetry.leftovers_stop(supervisor, adoption, Clock.now_us() - adoption.accepted_us)
  end
end
