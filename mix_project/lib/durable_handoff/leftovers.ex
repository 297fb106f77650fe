defmodule DurableHandoff.Leftovers do
  @moduledoc """
  Starts here, at once, what a drain elsewhere could not move in time.

  A drain that ends with servers it did not move (`:deadline`, `:failures`, `:capacity`, `:no_target`,
  `:attempts_exhausted`, or `:cancelled` during a shutdown; one that `DurableHandoff.cancel/1` ended hands on
  only what it had stopped already) hands the list to this process on other nodes
  (`DurableHandoff.Leftovers.Handover`), before the existing shutdown stops these servers. Here each one is
  started as soon as its graceful stop is in storage, instead of at another node's next sweep. Servers that
  are not permanent count like permanent ones: the policy that let them into the drain decides.

  Guarantees:

    * Nothing runs twice. A start is the host's own conditional claim (`DurableHandoff.Host.Existing`), so it
      does not matter who else tries: a discovery sweep, a client, another receiver. A server that has been
      started already stays where it is.
    * Nothing is started that was stopped for good, deleted, cordoned, or has crashed.
    * A source that dies before its graceful shutdown has ended changes only the time: its lock has to expire first.
    * If this node goes down, or drains, the next receiver in line takes over what it has not started. A line has three.
    * Bounded: at most 300,000 servers are held; what has not been started after five minutes is dropped; starts run at the pace
      that the engine's limiter finds, or up to eight at a time while the store does not fail; at most `max_concurrency`.
    * Nothing depends on it. Without it, or when it crashes, the host's own discovery does what it always did.

  One for each supervisor with `start_leftovers: true`, beside its Drainer and stopped after it.

  ```text
  on standby ── all before it are gone ──► waiting ── down at the source ──► queued ──► trying ──┬─► started, runs elsewhere, dropped
                                            ▲   ▲                              ▲           ├─► resting ──► queued
                                            │   └── still up ───────────────────┼───────────┤
                                            └────── locked by a dead node ──────┴───────────┘
  ```

  A server that stops by itself, gracefully, within these five minutes on a node that was drained but not shut down counts as
  left, too, and is started elsewhere once.
  """

  use GenServer

  alias DurableHandoff.{Host, Options, Status}
  alias DurableHandoff.Host.Departures
  alias DurableHandoff.Leftovers.{Receiver, Share}

  @tick_ms 1_000

  @doc "Starts the receiver of `supervisor`."
  @spec start_link({Host.name(), Options.t()}) :: GenServer.on_start()
  def start_link({supervisor, options}),
    do: GenServer.start_link(__MODULE__, {supervisor, options}, name: name(supervisor))

  @doc "The name it is registered under, on every node."
  @spec name(Host.name()) :: atom()
  def name(supervisor), do: :"#{supervisor}_handoff_leftovers"

  @doc "This node drains from now on: it takes nothing more, and what it holds is the next receiver's."
  @spec stand_down(Host.name()) :: :ok
  def stand_down(supervisor) do
    with pid when is_pid(pid) <- Process.whereis(name(supervisor)), do: tell(pid, :stand_down)
    :ok
  end

  @doc """
  Tells another receiver something: `{:stood_down, pid}`: that receiver starts nothing more; `{:pass, id, keys}`: these servers of
  the share are yours now; `{:settled, id}`: nothing of the share is left to be taken over.
  """
  @spec tell(pid(), :stand_down | {:stood_down, pid()} | {:pass, reference(), [term()]} | {:settled, reference()}) ::
          :ok
  def tell(receiver, message) do
    send(receiver, {__MODULE__, message})
    :ok
  end

  @impl true
  def init({supervisor, options}) do
    Process.flag(:trap_exit, true)
    # A node that was drained before this process crashed is still marked.
    draining? = match?(%{state: state} when state != :idle, Status.read(supervisor))
    {:ok, %{receiver: Receiver.new(supervisor, options, draining?), ticking?: false}}
  end

  @impl true
  def handle_call(:ready?, _from, state) do
    {:reply, if(Receiver.draining?(state.receiver), do: {:error, :draining}, else: {:ready, self()}), state}
  end

  def handle_call({:take, message}, _from, state) do
    with {:ok, share} <- Share.new(message, self(), now_ms()),
         {:ok, receiver} <- Receiver.take(state.receiver, share) do
      {:reply, {:ok, Share.size(share)}, ensure_ticking(%{state | receiver: receiver}), {:continue, {:begin, share.id}}}
    else
      {:error, reason} -> {:reply, {:error, reason}, state}
    end
  end

  # A later version that asks for something else is better answered than crashed for.
  def handle_call(_unknown, _from, state), do: {:reply, {:error, :unsupported}, state}

  # The first look at a share can take a while: after the reply.
  @impl true
  def handle_continue({:begin, id}, state), do: {:noreply, update(state, &Receiver.begin(&1, id))}

  @impl true
  def handle_info(:tick, state) do
    state = update(%{state | ticking?: false}, &Receiver.tick(&1, now_ms()))
    {:noreply, if(Receiver.idle?(state.receiver), do: state, else: ensure_ticking(state))}
  end

  def handle_info(message, state), do: {:noreply, update(state, &handle(message, &1))}

  # From the Drainer of this node, from other receivers and from sources.
  defp handle({__MODULE__, :stand_down}, receiver), do: Receiver.stand_down(receiver)

  defp handle({__MODULE__, {:stood_down, pid}}, receiver) when is_pid(pid),
    do: Receiver.out_of_line(receiver, pid, :stood_down)

  defp handle({__MODULE__, {:pass, id, keys}}, receiver) when is_list(keys), do: Receiver.passed(receiver, id, keys)
  defp handle({__MODULE__, {:settled, id}}, receiver), do: Receiver.settled(receiver, id)

  # A process that tried one, or another receiver.
  defp handle({:tried, pid, outcome, latency_us}, receiver), do: Receiver.tried(receiver, pid, outcome, latency_us)
  defp handle({:DOWN, _monitor, :process, pid, _reason}, receiver), do: Receiver.down(receiver, pid)
  defp handle({:rested, id, key}, receiver), do: Receiver.enqueue(receiver, id, key, :resting)
  defp handle(message, receiver), do: message |> Departures.read() |> Enum.reduce(receiver, &Receiver.changed(&2, &1))

  defp update(state, change), do: %{state | receiver: state.receiver |> change.() |> Receiver.pump()}

  defp ensure_ticking(%{ticking?: true} = state), do: state

  defp ensure_ticking(state) do
    Process.send_after(self(), :tick, @tick_ms)
    %{state | ticking?: true}
  end

  defp now_ms, do: System.monotonic_time(:millisecond)
end
