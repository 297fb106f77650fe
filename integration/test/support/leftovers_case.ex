defmodule LeftoversCase do
  @moduledoc """
  Tests of leftovers: `HandoffCase` on a cluster without sweeps.

      use LeftoversCase, nodes: 3

  `start_uneven/3` and `block_drain/2` cause a drain that has moved no server at its deadline.
  """

  use ExUnit.CaseTemplate

  using opts do
    quote do
      use HandoffCase, unquote(opts)
      import LeftoversCase
    end
  end

  @doc """
  Starts the test's supervisor: on `source` with one move at a time, on `receivers` with many starts at a
  time.
  """
  @spec start_uneven(map(), node(), [node()], keyword()) :: atom()
  def start_uneven(context, source, receivers, handoff \\ []) do
    app = HandoffCase.start_handoff(context, source, leaving(context, handoff))
    for node <- receivers, do: HandoffCase.start_handoff(context, node, unswept(context))
    Cluster.await_heartbeats([source | receivers], context.sup)
    app
  end

  @doc "Options of a supervisor without sweeps: only a receiver or a client starts a server that is down."
  @spec unswept(map(), keyword()) :: keyword()
  def unswept(context, handoff \\ []) do
    handoff = Keyword.merge([timeout_ms: 60_000, max_concurrency: 20, concurrency: :fixed], handoff)
    ClusterCase.no_sweeps(context) ++ [handoff_on_shutdown: handoff]
  end

  @doc "The same, with one move at a time, `Servers.Troublesome` first, and a short timeout."
  @spec leaving(map(), keyword()) :: keyword()
  def leaving(context, handoff \\ []) do
    first = %{Servers.Troublesome => [priority: 10]}
    unswept(context, Keyword.merge([timeout_ms: 2_000, max_concurrency: 1, modules: first], handoff))
  end

  @doc """
  Starts the server `key` on `node`. The next drain there moves it first, and it does not stop until
  `unblock/2`. So a drain with one attempt at a time has moved no server at its deadline.
  """
  @spec block_drain(map(), node(), String.t()) :: :ok
  def block_drain(context, node, key \\ "blocker") do
    ClusterCase.start_server(context, node, Servers.Troublesome, key, %{count: 0})
    Servers.Troublesome.arm(node, key, :terminate, :hang)
  end

  @doc """
  The result of a drain that has moved no server at its deadline: of `node`, whose clock has been stopped
  (`FrozenClock`), with a blocker. `hanging`: how many blockers hang then, with those of earlier drains.
  """
  @spec drain_to_deadline(map(), node(), pos_integer()) :: term()
  def drain_to_deadline(context, node, hanging \\ 1) do
    draining = Task.async(fn -> HandoffCase.drain(context, node, timeout_ms: 600_000) end)
    Cluster.wait_until(fn -> length(Servers.Troublesome.hanging(node, :terminate)) == hanging end)
    FrozenClock.advance(node, 600_000)
    ClusterCase.await_task(draining)
  end

  @doc "Lets the blocker `key` on `node` stop."
  @spec unblock(node(), String.t()) :: boolean()
  def unblock(node, key \\ "blocker"), do: Servers.Troublesome.disarm(node, key, :terminate)

  @doc "The phases of the servers that the receiver on `node` has to start."
  @spec active(map(), node()) :: %{String.t() => term()}
  def active(context, node), do: Map.reject(held(context, node), fn {_key, phase} -> phase == :pending end)

  @doc """
  The servers that the receiver on `node` holds, by key, with their phases; `:pending` if an earlier receiver
  starts them.
  """
  @spec held(map(), node()) :: %{String.t() => term()}
  def held(context, node) do
    # A process that is restarting does not answer.
    held = {DurableHandoff.Leftovers, :held, [context.sup]}

    Cluster.wait_until(fn ->
      with {kind, _reason} when kind != :ok <- Cluster.call(node, Relay, :try, [held]),
           do: nil,
           else: ({:ok, held} -> held)
    end)
  end

  @doc "The process that starts leftovers on `node`."
  @spec receiver(map(), node()) :: pid() | nil
  def receiver(context, node),
    do: Cluster.call(node, Process, :whereis, [DurableHandoff.Leftovers.Message.name(context.sup)])

  @doc "The number of held reads of `key`."
  @spec held_reads(map(), String.t()) :: non_neg_integer()
  def held_reads(context, key) do
    key = ClusterCase.storage_key(context, key)
    Enum.count(SimulatedStore.paused(context.store), &(&1 == {:get, key}))
  end

  @doc "Waits until no receiver on `nodes` holds anything."
  @spec await_idle(map(), [node()]) :: :ok
  def await_idle(context, nodes),
    do: Cluster.wait_for(%{}, fn -> Enum.reduce(nodes, %{}, &Map.merge(held(context, &1), &2)) end)
end
