defmodule DurableHandoff.Executor.Link do
  @moduledoc false
  # One drain's line to one Rust node: the protocol as the draining side speaks it (crate handoff_wire), without decisions.
  #
  # Guarantees:
  #
  #   * Nothing here waits. What cannot be sent now, because the connection is full, is sent later in the same order; not at all for
  #     two seconds, or without a connection, and the line is lost.
  #   * The node hears something every 500 ms, and the line is lost when it says nothing for two seconds, ends, refuses, or says what
  #     cannot be understood. Everything about another drain is ignored. A time in which this VM was held up is no silence of the node's:
  #     what it said then is still on its way here. One such time is let pass between two words of the node.
  #   * What waits to be sent is bounded: servers are encoded when their turn comes, views that wait are replaced by newer ones,
  #     and events are at most those of the attempts under way.

  alias DurableHandoff.{Outside, Wire}

  # How soon a full connection is tried again. The drain does other things meanwhile.
  @retry_us 5_000
  # flush/2 is called every 500 ms at least; twice that late, and this VM was held up.
  @held_up_keepalives 2

  @enforce_keys [:pid, :to, :monitor, :id, :deadline_us, :heard_us, :told_us, :flushed_us, :entries]
  defstruct @enforce_keys ++
              [:blocked_us, :view, stage: :opening, first: 0, queue: [], events: [], finish?: false, excused?: false]

  @type t :: %__MODULE__{}
  @type input :: {:order, DurableHandoff.Native.action()} | {:ended, map()}

  @spec open(pid(), DurableHandoff.Executor.Session.job(), integer(), integer()) :: t()
  def open(pid, job, deadline_us, now) do
    id = System.unique_integer([:positive])
    spec = job |> Map.take([:supervisor, :storage, :modules, :config]) |> Map.put(:count, length(job.entries))

    %__MODULE__{
      pid: pid,
      to: {Wire.node_process(), node(pid)},
      monitor: Process.monitor(pid),
      id: id,
      deadline_us: deadline_us,
      heard_us: now,
      told_us: now,
      flushed_us: now,
      entries: job.entries,
      view: job.view,
      queue: [Wire.drain_open(id, self(), spec)]
    }
  end

  @spec close(t()) :: :ok
  def close(link) do
    Process.demonitor(link.monitor, [:flush])
    # Whatever becomes of it: the node notices the end of this process, or the silence, as well.
    Outside.send(link.to, Wire.drain_close(link.id))
    :ok
  end

  @spec event(t(), DurableHandoff.Native.event()) :: t()
  def event(%{stage: :running} = link, event), do: %{link | events: [event | link.events]}
  # Nothing was ordered yet. What else can happen, the first view says.
  def event(link, _event), do: link

  @spec view(t(), DurableHandoff.Native.view()) :: t()
  def view(link, view), do: %{link | view: view}

  @doc "Sends what there is to be sent. When to call again at the latest, or why the line is lost."
  @spec flush(t(), integer()) :: {:ok, t(), wake_us :: integer()} | {:lost, term()}
  def flush(link, now) do
    link = link |> excuse(now) |> Map.replace!(:flushed_us, now)

    if now - link.heard_us >= Wire.silence_ms() * 1_000,
      do: {:lost, :silent},
      else: link |> fill(now) |> drain(now)
  end

  @spec message(t(), integer(), term()) :: {:ok, t(), [input()]} | {:lost, term()} | :not_ours
  def message(%{monitor: monitor}, _now, {:DOWN, monitor, :process, _pid, reason}), do: {:lost, {:down, reason}}

  def message(%{id: id} = link, now, message) do
    case Wire.read(message) do
      :other -> :not_ours
      {:ok, {:refuse, nil, reason}} -> {:lost, {:refused, reason}}
      {:ok, received} when elem(received, 1) == id -> hear(received, %{link | heard_us: now, excused?: false})
      {:ok, _of_another_drain} -> :not_ours
      {:error, reason} -> {:lost, {:not_understood, reason}}
    end
  end

  defp hear({:opened, _id}, %{stage: :opening} = link), do: {:ok, %{link | stage: :loading}, []}
  defp hear({:started, _id}, %{stage: :running} = link), do: {:ok, link, []}

  # Its report says why what is left was left: it follows at once, and only then is the drain over.
  defp hear({:orders, _id, orders}, %{stage: :running, finish?: false} = link) do
    {ends, orders} = Enum.split_with(orders, &(&1 == :finish))
    {:ok, %{link | finish?: ends != []}, Enum.map(orders, &{:order, &1})}
  end

  defp hear({:report, _id, report}, %{finish?: true} = link), do: {:ok, link, [{:ended, report}]}
  defp hear({:progress, _id}, link), do: {:ok, link, []}
  defp hear({:refuse, _id, reason}, _link), do: {:lost, {:refused, reason}}
  defp hear(message, _link), do: {:lost, {:out_of_order, elem(message, 0)}}

  # What is to be sent next, once nothing else waits.
  defp fill(%{queue: [_ | _]} = link, _now), do: link

  defp fill(%{stage: :loading, entries: [_ | _]} = link, _now) do
    {message, first, rest} = Wire.servers(link.id, link.first, link.entries)
    %{link | queue: [message], first: first, entries: rest}
  end

  defp fill(%{stage: :loading, entries: []} = link, now) do
    left_ms = max(div(link.deadline_us - now, 1_000), 1)
    messages = Wire.view(link.id, link.view) ++ [Wire.drain_start(link.id, left_ms)]
    %{link | queue: messages, stage: :running, view: nil}
  end

  defp fill(%{stage: :running, events: [_ | _]} = link, _now),
    do: %{link | queue: Wire.events(link.id, Enum.reverse(link.events)), events: []}

  defp fill(%{stage: :running, view: %{} = view} = link, _now), do: %{link | queue: Wire.view(link.id, view), view: nil}
  defp fill(link, _now), do: link

  defp drain(%{queue: [message | rest]} = link, now) do
    case Outside.send(link.to, message) do
      :ok -> %{link | queue: rest, told_us: now, blocked_us: nil} |> fill(now) |> drain(now)
      :nosuspend -> blocked(link, now)
      :noconnect -> {:lost, :noconnection}
    end
  end

  defp drain(%{queue: []} = link, now) do
    if now - link.told_us >= Wire.keepalive_ms() * 1_000,
      do: drain(%{link | queue: [Wire.keepalive(link.id)]}, now),
      else: {:ok, link, min(link.told_us + Wire.keepalive_ms() * 1_000, silent_at(link))}
  end

  defp blocked(link, now) do
    since = link.blocked_us || now

    if now - since >= Wire.silence_ms() * 1_000,
      do: {:lost, :congested},
      else: {:ok, %{link | blocked_us: since}, min(now + @retry_us, silent_at(link))}
  end

  defp excuse(%{excused?: false} = link, now) when now > link.flushed_us do
    away_us = now - link.flushed_us

    if away_us > @held_up_keepalives * Wire.keepalive_ms() * 1_000,
      do: %{link | heard_us: min(link.heard_us + away_us, now), excused?: true},
      else: link
  end

  defp excuse(link, _now), do: link

  defp silent_at(link), do: link.heard_us + Wire.silence_ms() * 1_000
end
