defmodule DurableHandoff.Executor.Link do
  @moduledoc false
  # The protocol between one drain and one Rust node, on the draining side (crate handoff_wire). Decides
  # nothing.
  #
  # Guarantees:
  #
  #   * No function here blocks. Messages that cannot be sent because the connection's buffer is full are sent
  #     later, in the same order. The link is lost when the buffer stays full for two seconds, and when the
  #     connection is lost.
  #   * The node gets a message at least every 500 ms. The link is lost when the node sends nothing for two
  #     seconds, ends, refuses, or sends an invalid message. Messages about another drain are ignored.
  #   * If this VM itself was paused, the pause does not count as silence of the node: messages sent meanwhile
  #     are still in the socket. At most one pause is forgiven between two messages.
  #   * The queue is bounded: servers are encoded only when they are sent, a newer view replaces one that waits,
  #     and there are at most the events of the attempts in flight.

  alias DurableHandoff.Wire

  # How long to wait before sending again on a connection whose buffer was full.
  @retry_us 5_000
  # The Rust node gets this much less than the time left, at most a tenth less: if moves do not end, its report has to
  # arrive before this side's deadline. Otherwise the Rust node does not learn how its drain ended.
  @margin_ms 500
  # flush/2 is called at least every 500 ms. A call that is later than this many intervals means that this VM
  # was paused.
  @pause_keepalives 2

  @enforce_keys [:pid, :to, :id, :deadline_us, :received_at_us, :sent_at_us, :flushed_at_us, :entries]
  defstruct @enforce_keys ++
              [
                :monitor,
                :blocked_us,
                :view,
                :waits_for,
                stage: :opening,
                first: 0,
                queue: [],
                events: [],
                finish?: false,
                pause_forgiven?: false
              ]

  @typedoc "What a Rust node is sent at the start. `config` and `entries` are those of the engine in this VM."
  @type job :: %{
          supervisor: String.t(),
          storage: String.t(),
          modules: [String.t()],
          config: map(),
          entries: [tuple()],
          view: map()
        }
  @type t :: %__MODULE__{}
  @type input :: {:order, DurableHandoff.Native.action()} | {:ended, map()}

  @doc "How much earlier than this side the Rust node ends a drain at the most."
  @spec margin_us() :: pos_integer()
  def margin_us, do: @margin_ms * 1_000

  @spec open(pid(), job(), integer(), integer()) :: t()
  def open(pid, job, deadline_us, now) do
    id = System.unique_integer([:positive])
    spec = job |> Map.take([:supervisor, :storage, :modules, :config]) |> Map.put(:count, length(job.entries))

    %__MODULE__{
      pid: pid,
      to: {Wire.node_process(), node(pid)},
      id: id,
      deadline_us: deadline_us,
      received_at_us: now,
      sent_at_us: now,
      flushed_at_us: now,
      entries: job.entries,
      view: job.view,
      queue: [open_message(id, spec)]
    }
  end

  defp open_message(id, %{config: %{goal: :rebalance}} = spec), do: Wire.rebalance_open(id, self(), spec)
  defp open_message(id, spec), do: Wire.drain_open(id, self(), spec)

  @doc "Ends the node's part. The link's monitor stays, because removing it waits while the connection is full."
  @spec close(t()) :: :ok
  def close(link) do
    # This message may be lost: the node also ends the drain when this process ends, or when it has received
    # nothing for two seconds.
    Wire.send(link.to, Wire.drain_close(link.id))
    :ok
  end

  @spec queue_event(t(), DurableHandoff.Native.event()) :: t()
  def queue_event(%{stage: :running} = link, event), do: %{link | events: [event | link.events]}
  # Nothing was ordered yet, and the first view contains all other information.
  def queue_event(link, _event), do: link

  @spec queue_view(t(), DurableHandoff.Native.view()) :: t()
  def queue_view(link, view), do: %{link | view: view}

  @doc "Sends the queued messages. Returns when to call it again at the latest, or why the link is lost."
  @spec flush(t(), integer()) :: {:ok, t(), wake_us :: integer()} | {:lost, term()}
  def flush(link, now) do
    link = link |> forgive_pause(now) |> Map.replace!(:flushed_at_us, now)

    if now - link.received_at_us >= Wire.silence_ms() * 1_000,
      do: {:lost, :silent},
      else: link |> fill(now) |> drain(now)
  end

  @spec handle_message(t(), integer(), term()) :: {:ok, t(), [input()]} | {:lost, term()} | :not_ours
  def handle_message(%{monitor: monitor}, _now, {:DOWN, monitor, :process, _pid, reason}), do: {:lost, {:down, reason}}

  def handle_message(%{id: id} = link, now, message) do
    case Wire.read(message) do
      :other ->
        :not_ours

      {:ok, {:refuse, nil, reason}} ->
        {:lost, {:refused, reason}}

      {:ok, received} when elem(received, 1) == id ->
        receive_message(received, %{link | received_at_us: now, pause_forgiven?: false})

      {:ok, _of_another_drain} ->
        :not_ours

      {:error, reason} ->
        {:lost, {:not_understood, reason}}
    end
  end

  defp receive_message({:opened, _id}, %{stage: :opening} = link), do: {:ok, %{link | stage: :loading}, []}
  defp receive_message({:started, _id}, %{stage: :running} = link), do: {:ok, link, []}

  # The report follows at once, with the reason for each server that was not moved. Only the report ends the
  # drain.
  defp receive_message({:orders, _id, orders}, %{stage: :running, finish?: false} = link) do
    {ends, orders} = Enum.split_with(orders, &(&1 == :finish))
    {:ok, %{link | finish?: ends != []}, Enum.map(orders, &{:order, &1})}
  end

  defp receive_message({:report, _id, report}, %{finish?: true} = link), do: {:ok, link, [{:ended, report}]}
  defp receive_message({:progress, _id, waits_for}, link), do: {:ok, %{link | waits_for: waits_for}, []}
  defp receive_message({:refuse, _id, reason}, _link), do: {:lost, {:refused, reason}}
  defp receive_message(message, _link), do: {:lost, {:out_of_order, elem(message, 0)}}

  # Adds the next messages when the queue is empty.
  defp fill(%{queue: [_ | _]} = link, _now), do: link

  defp fill(%{stage: :loading, entries: [_ | _]} = link, _now) do
    {message, first, rest} = Wire.servers(link.id, link.first, link.entries)
    %{link | queue: [message], first: first, entries: rest}
  end

  defp fill(%{stage: :loading, entries: []} = link, now) do
    left_ms = max(div(link.deadline_us - now, 1_000), 1)
    start = Wire.drain_start(link.id, left_ms - min(@margin_ms, div(left_ms, 10)))
    messages = Wire.view(link.id, link.view) ++ [start]
    %{link | queue: messages, stage: :running, view: nil}
  end

  defp fill(%{stage: :running, events: [_ | _]} = link, _now),
    do: %{link | queue: Wire.events(link.id, Enum.reverse(link.events)), events: []}

  defp fill(%{stage: :running, view: %{} = view} = link, _now), do: %{link | queue: Wire.view(link.id, view), view: nil}
  defp fill(link, _now), do: link

  defp drain(%{queue: [message | rest]} = link, now) do
    case Wire.send(link.to, message) do
      :ok -> %{link | queue: rest, sent_at_us: now, blocked_us: nil} |> monitor() |> fill(now) |> drain(now)
      :nosuspend -> blocked(link, now)
      :noconnect -> {:lost, :noconnection}
    end
  end

  defp drain(%{queue: []} = link, now) do
    if now - link.sent_at_us >= Wire.keepalive_ms() * 1_000,
      do: drain(%{link | queue: [Wire.keepalive(link.id)]}, now),
      else: {:ok, link, min(link.sent_at_us + Wire.keepalive_ms() * 1_000, silent_at(link))}
  end

  # Setting a monitor waits while the connection is full, so it follows the first message that could be sent.
  defp monitor(%{monitor: nil} = link), do: %{link | monitor: Process.monitor(link.pid)}
  defp monitor(link), do: link

  defp blocked(link, now) do
    since = link.blocked_us || now

    if now - since >= Wire.silence_ms() * 1_000,
      do: {:lost, :congested},
      else: {:ok, %{link | blocked_us: since}, min(now + @retry_us, silent_at(link))}
  end

  defp forgive_pause(%{pause_forgiven?: false} = link, now) when now > link.flushed_at_us do
    away_us = now - link.flushed_at_us

    if away_us > @pause_keepalives * Wire.keepalive_ms() * 1_000,
      do: %{link | received_at_us: min(link.received_at_us + away_us, now), pause_forgiven?: true},
      else: link
  end

  defp forgive_pause(link, _now), do: link

  defp silent_at(link), do: link.received_at_us + Wire.silence_ms() * 1_000
end
