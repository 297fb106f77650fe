defmodule DurableHandoff.Plan do
  @moduledoc """
  What a drain would do now.

      {:ok, plan} = DurableHandoff.plan(MyApp.Durable)
      IO.puts(plan)

  Guarantee: made by the same engine from the same snapshot as a drain, and read-only. Nothing is marked, stopped,
  moved or reserved. The store serves at most a hundred reads (and those of `eligible: :permanent`).

    * `moves`: `%{key:, module:, target:}` for each server that has a target;
    * `stays`: `%{key:, module:, reason:}` for each that has none, with the reasons of `DurableHandoff.Report`;
    * `targets`, `left`: the number of servers by target, and by reason;
    * `out_of_reach`: nodes that are healthy by their heartbeats in the store, but not connected to this one. A
      drain connects to them (option `reconnect`). Compare cookie, node names and `connect_all`;
    * `balance`: of a rebalance, as in `DurableHandoff.Report`;
    * `timeout_ms`: the time that the drain would have;
    * `estimate`: `nil` when there is nothing to move or the store did not answer. Else a map: `round_trip_ms` of
      one request, `drain_ms` (right within a factor of two), and `fit`, how many servers move within `timeout_ms`.
      Slow callbacks are not part of it. Writes count as slow as reads, except with `DurableHandoff.Store`, which
      measures them.

  Other nodes can change before the drain, and drains of other nodes are not known in advance.
  """

  alias DurableHandoff.{Clock, Deadline, Host, Native, Options}
  alias DurableHandoff.Drain.{Estimate, Peers, Snapshot}

  @enforce_keys [:supervisor, :total, :moves, :stays, :targets, :left, :estimate]
  defstruct @enforce_keys ++ [timeout_ms: 30_000, out_of_reach: [], balance: nil]

  @type t :: %__MODULE__{
          supervisor: atom(),
          total: non_neg_integer(),
          moves: [%{key: term(), module: module(), target: String.t()}],
          stays: [%{key: term(), module: module(), reason: DurableHandoff.Report.reason()}],
          targets: %{String.t() => pos_integer()},
          left: %{DurableHandoff.Report.reason() => pos_integer()},
          timeout_ms: pos_integer(),
          out_of_reach: [String.t()],
          balance: nil | DurableHandoff.Report.balance(),
          estimate: nil | %{round_trip_ms: float(), drain_ms: float(), fit: non_neg_integer()}
        }

  @doc false
  @spec make(Host.name(), Options.t(), Snapshot.scope()) :: {:ok, t()} | {:error, {:invalid, [String.t()]}}
  def make(supervisor, %Options{} = options, scope \\ :all) do
    snapshot = Snapshot.take(supervisor, options, Deadline.drain(Clock.now_us(), options.timeout_ms), scope)
    config = Snapshot.engine_config(snapshot, options, options.timeout_ms)

    with {:ok, answer} <- Native.plan(config, snapshot.entries, snapshot.view) do
      {moves, stays} =
        snapshot.servers |> Tuple.to_list() |> Enum.zip(assigned(answer)) |> Enum.split_with(&match?({_, {:ok, _}}, &1))

      moves = for {server, {:ok, target}} <- moves, do: %{key: server.key, module: server.module, target: target}
      stays = for {server, {:error, reason}} <- stays, do: stay(server, reason)
      stays = stays ++ for server <- snapshot.excluded, do: stay(server, :excluded)
      stays = stays ++ for server <- snapshot.lately, do: stay(server, :moved_lately)

      {:ok,
       %__MODULE__{
         supervisor: supervisor,
         total: length(moves) + length(stays),
         moves: moves,
         stays: stays,
         targets: Enum.frequencies_by(moves, & &1.target),
         left: Enum.frequencies_by(stays, & &1.reason),
         timeout_ms: options.timeout_ms,
         balance: Map.get(answer, :balance),
         out_of_reach: Peers.out_of_reach(snapshot.view),
         estimate: estimate(supervisor, moves, options)
       }}
    end
  end

  @doc false
  # The target of each server of `entries`, or the reason why it has none, in the same order. Nothing is
  # started.
  @spec assign(map(), [tuple()], Native.view()) ::
          {:ok, [{:ok, String.t()} | {:error, DurableHandoff.Report.reason()}]} | {:error, {:invalid, [String.t()]}}
  def assign(config, entries, view) do
    with {:ok, answer} <- Native.plan(config, entries, view), do: {:ok, assigned(answer)}
  end

  defp assigned(%{targets: targets, assignment: assignment}) do
    targets = List.to_tuple(targets)
    reasons = Map.new(Native.reasons(), fn {reason, code} -> {code, reason} end)

    # One signed 32-bit number per server: the index of its target, or the negative code of the reason.
    for <<number::signed-little-32 <- assignment>> do
      if number >= 0, do: {:ok, elem(targets, number)}, else: {:error, Map.fetch!(reasons, -number)}
    end
  end

  defp stay(server, reason), do: %{key: server.key, module: server.module, reason: reason}

  defp estimate(_supervisor, [], _options), do: nil

  defp estimate(supervisor, moves, options) do
    names = moves |> Enum.map(& &1.target) |> Enum.uniq()
    keys = Enum.map(moves, & &1.key)

    with %{} = measured <- Estimate.measure(supervisor, keys, Host.connected(names), options.max_concurrency) do
      # Which servers have something to store is unknown until they are asked. Half of them is a reasonable
      # guess.
      states = {div(length(moves) + 1, 2), Host.graceful_concurrency(supervisor)}
      Estimate.make(measured, length(moves), length(names), options, states)
    end
  end

  defimpl Inspect do
    # IEx prints every evaluated term: the lists of a large plan would push the summary out of sight.
    def inspect(plan, _opts),
      do: "#DurableHandoff.Plan<#{Kernel.inspect(plan.supervisor)}: #{plan}; each server is in .moves or .stays>"
  end

  defimpl String.Chars do
    def to_string(%{balance: %{} = balance} = plan) do
      idle = if balance.idle, do: "; idle: #{balance.idle}", else: ""
      shares = Enum.map_join(balance.after, ", ", &"#{&1.name} #{&1.servers}")

      stays = counts("; would stay: ", Map.delete(plan.left, :kept))

      "#{length(plan.moves)} of #{balance.excess} above this node's share would move#{counts(" to ", plan.targets)}" <>
        "#{stays}#{idle}; then #{shares}"
    end

    def to_string(plan) do
      estimate =
        if plan.estimate,
          do: "; " <> DurableHandoff.Drain.Estimate.sentence(plan.estimate, length(plan.moves), plan.timeout_ms),
          else: ""

      "#{length(plan.moves)} of #{plan.total} servers would move#{counts(" to ", plan.targets)}" <>
        "#{counts("; would stay: ", plan.left)}#{estimate}#{advice(plan)}"
    end

    defp advice(%{out_of_reach: []}), do: ""
    defp advice(%{out_of_reach: names}), do: "; " <> DurableHandoff.Drain.Peers.advice(names)

    defp counts(_lead, map) when map == %{}, do: ""
    defp counts(lead, map), do: lead <> (map |> Enum.sort() |> Enum.map_join(", ", fn {name, n} -> "#{name} #{n}" end))
  end
end
