defmodule DurableServer.Eligibility do
  @moduledoc """
  Which nodes may take a server, best first. Pure: the rules of placement and nothing else.

    1. Never the asking node, never a draining one.
    2. Healthy only: the newest heartbeat is at most 50 s old. A stamp too far in the future counts as absent.
    3. Room: fewer servers than the limit, in total and of this module, where limits exist.
    4. CPU, memory and disk below their limits, where both numbers are known. On a node of the preferred
       sticky level the disk is ignored.
    5. Sticky: the node matches a level (`DurableServer.Sticky`), even if that level is not open yet.
    6. Order: sticky level, then busyness, then the newest heartbeat, then the name.
  """

  alias DurableServer.Sticky

  @max_age_ms 50_000

  @typedoc "One heartbeat. Several of one node may be given; the newest counts."
  @type heartbeat :: %{
          node: String.t(),
          timestamp: integer(),
          capacity: map() | nil,
          resources: map() | nil,
          env_vars: map() | nil,
          heartbeat_meta: map() | nil
        }

  @type query :: %{
          local: String.t(),
          module: module(),
          now: integer(),
          future_skew_ms: non_neg_integer(),
          levels: Sticky.levels() | nil
        }

  @doc """
  The maximum age of a heartbeat. Only runs of faults set `:heartbeat_max_age_ms` of this application, so that
  they need not wait for almost a minute after each killed node.
  """
  @spec max_age_ms() :: pos_integer()
  def max_age_ms, do: Application.get_env(:durable_server, :heartbeat_max_age_ms, @max_age_ms)

  @doc "The newest heartbeat of every node that is not from the future, by node name."
  @spec newest([heartbeat()], integer(), non_neg_integer()) :: %{String.t() => heartbeat()}
  def newest(heartbeats, now, future_skew_ms) do
    for heartbeat <- heartbeats, heartbeat.timestamp - now <= future_skew_ms, reduce: %{} do
      found ->
        Map.update(found, heartbeat.node, heartbeat, &if(heartbeat.timestamp > &1.timestamp, do: heartbeat, else: &1))
    end
  end

  @spec healthy?(heartbeat(), integer()) :: boolean()
  def healthy?(heartbeat, now), do: now - heartbeat.timestamp <= max_age_ms()

  @doc "Whether a node counts as alive for locks and regions: by the supervisor's threshold, which is shorter than that of placement."
  @spec fresh?(heartbeat(), DurableServer.Config.t()) :: boolean()
  def fresh?(heartbeat, config) do
    System.system_time(:millisecond) - heartbeat.timestamp <= min(config.heartbeat_staleness_threshold_ms, max_age_ms())
  end

  @doc "Names of the eligible nodes, best first."
  @spec eligible([heartbeat()], query()) :: [String.t()]
  def eligible(heartbeats, query) do
    heartbeats
    |> newest(query.now, query.future_skew_ms)
    |> Map.values()
    |> Enum.filter(&candidate?(&1, query))
    |> Enum.flat_map(&ranked(&1, query))
    |> Enum.sort()
    |> Enum.map(fn {_level, _busyness, _age, name} -> name end)
  end

  defp candidate?(heartbeat, query) do
    known?(heartbeat.node) and heartbeat.node != query.local and not draining?(heartbeat) and
      healthy?(heartbeat, query.now) and
      room?(heartbeat.capacity, query.module)
  end

  # A node whose name is not yet an atom here cannot be connected, so it cannot be asked.
  defp known?(name) do
    _node = String.to_existing_atom(name)
    true
  rescue
    ArgumentError -> false
  end

  defp ranked(heartbeat, query) do
    with level when is_integer(level) <- level(heartbeat, query),
         true <- resources_left?(heartbeat.resources || %{}, level == 0 and sticky?(query)) do
      [{level, busyness(heartbeat, query.module), query.now - heartbeat.timestamp, heartbeat.node}]
    else
      _not_eligible -> []
    end
  end

  defp draining?(heartbeat), do: match?(%{"draining" => true}, heartbeat.heartbeat_meta)

  defp room?(capacity, module),
    do: Enum.all?(limits(capacity, module), fn %{current: current, limit: limit} -> current < limit end)

  defp limits(capacity, module), do: for(key <- [:total, module], %{} = limit <- [capacity[key]], do: limit)

  defp resources_left?(resources, skip_disk?) do
    below?(resources, :cpu, :max_cpu) and below?(resources, :memory, :max_memory) and
      (skip_disk? or below?(resources, :disk, :max_disk))
  end

  defp below?(resources, used, limit) do
    case resources do
      %{^used => used, ^limit => limit} when is_number(used) and is_number(limit) -> used < limit
      _unknown -> true
    end
  end

  defp sticky?(query), do: query.levels not in [nil, []]

  defp level(heartbeat, query) do
    if sticky?(query),
      do: Sticky.level(query.levels, heartbeat.env_vars),
      else: 0
  end

  # Rules 3 and 4 came first, so no limit here is zero.
  defp busyness(heartbeat, module) do
    counts = for %{current: current, limit: limit} <- limits(heartbeat.capacity, module), do: current / limit
    resources = heartbeat.resources || %{}

    loads =
      for {used, limit} <- [cpu: :max_cpu, memory: :max_memory],
          %{^used => used, ^limit => limit} when is_number(used) and is_number(limit) <- [resources],
          do: used / limit

    Enum.max(counts ++ loads, fn -> 0.0 end)
  end
end
