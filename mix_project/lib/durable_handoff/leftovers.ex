defmodule DurableHandoff.Leftovers do
  @moduledoc false
  # Starts servers here that a drain on another node could not move in time.
  #
  # A drain that ends with servers it did not move (`:deadline`, `:failures`, `:capacity`, `:no_target`,
  # `:attempts_exhausted`, `:state_not_stored` or `:lost_race` when it runs nowhere, or `:cancelled` during a
  # shutdown) offers them to this process on other nodes (`DurableHandoff.Leftovers.Offer`), before the graceful
  # shutdown stops them. After `DurableHandoff.cancel/1` it offers only what it had stopped already. A node that
  # accepts an offer starts each server as soon as its graceful stop is in storage, instead of at the next sweep.
  # Servers that are not permanent count like permanent ones: the policy that let them into the drain decides.
  #
  # Guarantees:
  #
  #   * Nothing runs twice. A start is DurableServer's own conditional claim (`DurableHandoff.Host.Takeover`),
  #     so it does not matter what else tries: a discovery sweep, a client, another receiver. A server that
  #     has been started already stays where it is.
  #   * Nothing is started that was stopped for good, deleted, cordoned, or has crashed.
  #   * A source that dies before its graceful shutdown has ended changes only the time: its lock has to
  #     expire first.
  #   * If this node goes down, or drains, the next receiver in the line adopts the servers that it has not
  #     started. A line has three receivers.
  #   * Bounded: at most 300,000 servers are held; what has not been started after five minutes is dropped;
  #     starts run at the pace that the engine's limiter finds, or up to eight at a time while the store does
  #     not fail; at most `max_concurrency`.
  #   * Nothing depends on it. Without it, or when it crashes, DurableServer's own discovery starts the
  #     servers.
  #
  # One for each supervisor with `start_leftovers: true`, beside its Drainer and stopped after it.
  #
  # pending ── all before it are gone ──► waiting ── down at the source ──► queued ──► trying ──┬─► started, runs elsewhere, dropped
  #                                        ▲   ▲                              ▲           ├─► resting ──► queued
  #                                        │   └── still up ───────────────────┼───────────┤
  #                                        └────── locked by a dead node ──────┴───────────┘
  #
  # A full node forwards it to the next receiver, and keeps it until it is registered: when that receiver is gone or stands
  # down before that, it is queued again.
  #
  # A server that stops by itself, gracefully, within these five minutes on a node that was drained but neither
  # shut down nor uncordoned is adopted, too, and started elsewhere once.

  use GenServer

  alias DurableHandoff.{Clock, Host, Options, Status}
  alias DurableHandoff.Host.Registry
  alias DurableHandoff.Leftovers.{Adoption, Message, State}

  @tick_ms 1_000

  @doc "Starts the receiver of `supervisor`."
  @spec start_link({Host.name(), Options.t()}) :: GenServer.on_start()
  def start_link({supervisor, options}),
    do: GenServer.start_link(__MODULE__, {supervisor, options}, name: Message.name(supervisor))

  @doc """
  The servers that this node has accepted and not yet settled, with their phases; `:pending` while earlier
  receivers in line run.
  """
  @spec held(Host.name()) :: %{(key :: term()) => :pending | Adoption.phase()}
  def held(supervisor), do: GenServer.call(Message.name(supervisor), :held, :infinity)

  @impl true
  def init({supervisor, options}) do
    Process.flag(:trap_exit, true)
    # A mark that was set before this process crashed is still set.
    {:ok, State.new(supervisor, options, Status.marked?(supervisor))}
  end

  @impl true
  def handle_call(:ready?, _from, state) do
    state = State.ready(state)
    {:reply, if(state.draining?, do: {:error, :draining}, else: {:ready, self()}), state}
  end

  def handle_call({:take, offer}, _from, state) do
    state = State.ready(state)

    with {:ok, adoption} <- Adoption.new(offer, self(), Clock.now_us()),
         {:ok, state} <- State.accept(state, adoption) do
      {:reply, {:ok, Adoption.size(adoption)}, ensure_ticking(state), {:continue, {:begin, adoption.id}}}
    else
      {:error, reason} -> {:reply, {:error, reason}, state}
    end
  end

  def handle_call(:held, _from, state), do: {:reply, State.held(state), state}

  # A request of a later version.
  def handle_call(_unknown, _from, state), do: {:reply, {:error, :unsupported}, state}

  # The lookups for a large offer take a while, so they run after the reply.
  @impl true
  def handle_continue({:begin, id}, state), do: {:noreply, state |> State.begin(id) |> State.pump()}

  @impl true
  def handle_info(:tick, state) do
    state = %{state | ticking?: false} |> State.tick(Clock.now_us()) |> State.pump()
    {:noreply, if(State.idle?(state), do: state, else: ensure_ticking(state))}
  end

  def handle_info(message, state), do: {:noreply, message |> handle(state) |> State.pump()}

  # A start or another receiver has ended.
  defp handle({:tried, pid, outcome, latency_us}, state), do: State.tried(state, pid, outcome, latency_us)
  defp handle({:DOWN, _monitor, :process, pid, _reason}, state), do: State.down(state, pid)
  defp handle({:rested, id, key}, state), do: State.enqueue(state, id, key, :resting)

  defp handle(message, state) do
    case Message.read(message) do
      :stand_down -> State.stand_down(state)
      {:resumed, source} -> State.resumed(state, source)
      {:stood_down, pid} -> State.drop_receiver(state, pid, :stood_down)
      {:forwarded, id, keys} -> State.forwarded(state, id, keys)
      {:settled, id} -> State.settled(state, id)
      :unknown -> message |> Registry.events() |> Enum.reduce(state, &registry_event/2)
    end
  end

  defp registry_event({type, key, pid}, state), do: State.registry_event(state, type, key, node(pid))

  defp ensure_ticking(%{ticking?: true} = state), do: state

  defp ensure_ticking(state) do
    Process.send_after(self(), :tick, @tick_ms)
    %{state | ticking?: true}
  end
end
