defmodule DurableHandoff.Host.View do
  @moduledoc false
  # The cluster as the planner sees it: every node's newest heartbeat, checked field by field.
  #
  # Guarantee: the engine accepts the resulting view, even if other nodes have written invalid data. An
  # invalid field is left out, and so is a row that is not a heartbeat. Nothing here raises.
  #
  # A node's heartbeats arrive in two ways, through the store (cached in an ETS table) and through Group. The
  # newer one counts. Heartbeats too far in the future are ignored before that comparison: otherwise a node
  # whose clock was wrong for a moment would hide its own later heartbeats.
  #
  # Heartbeats are seconds apart, and a deploy stops nodes faster than that. So nodes are asked
  # (`DurableHandoff.Host.Count`): numbers of servers that are newer than the heartbeat replace those in it,
  # and a node that answers that it goes down counts as draining. Whether a node is healthy is decided by its
  # heartbeats alone.

  import DurableHandoff.Schema, only: [is_name: 1]

  alias DurableHandoff.Host

  # Larger integers cannot be real counts, limits or times, and would not fit into the engine's numbers.
  @sane 0x1F_FFFF_FFFF_FFFF
  @longest_name 255

  @type t :: %{now_ms: integer(), nodes: [map()]}

  @doc """
  The view of the supervisor `name` now.

  `modules` are the modules of the drain in the engine's order, `variables` the environment variables its
  sticky levels name: the view has only what the planner uses. `counts`: the answers of
  `DurableHandoff.Host.Count`.
  """
  @spec build(Host.name(), [module()], [String.t()], Host.Count.t()) :: t()
  def build(name, modules, variables, counts \\ %{}) do
    facts = %{
      now_ms: System.system_time(:millisecond),
      skew_ms: Host.future_skew_ms(name),
      connected: MapSet.new(Node.list(:connected), &Atom.to_string/1),
      slots: slots(modules),
      counts: counts,
      variables: variables
    }

    from(table_rows(name) ++ group_rows(name), facts)
  end

  @doc false
  # The pure part of the view. `rows` are 7-tuples as in DurableServer's table.
  def from(rows, facts) do
    nodes =
      for {name, stamp_ms, row} <- newest(rows, facts.now_ms + facts.skew_ms) do
        name |> node(stamp_ms, row, facts) |> counted(facts) |> answered(facts)
      end

    %{now_ms: facts.now_ms, nodes: Enum.sort_by(nodes, & &1.name)}
  end

  @doc "The view with the current numbers of this node, `own`, and its mark, from its own `answer`."
  @spec recount(t(), String.t(), Host.Count.answer(), [module()]) :: t()
  def recount(view, own, answer, modules) do
    facts = %{now_ms: view.now_ms, skew_ms: 0, slots: slots(modules), counts: %{own => %{answer | at_ms: view.now_ms}}}
    recounted = &%{counted(&1, facts) | draining: answer.stopping}
    %{view | nodes: for(node <- view.nodes, do: if(node.name == own, do: recounted.(node), else: node))}
  end

  @doc false
  # Maps each key of `capacity` to its number in the engine's view. The store may return a key as a string.
  def slots(modules) do
    for {module, slot} <- [{:total, :total} | Enum.with_index(modules)],
        key <- [module, Atom.to_string(module)],
        into: %{},
        do: {key, slot}
  end

  defp newest(rows, latest_ms) do
    rows
    |> Enum.reduce(%{}, fn row, newest ->
      with {name, stamp_ms} when stamp_ms <= latest_ms <- identity(row),
           false <- match?(%{^name => {other_ms, _row}} when other_ms >= stamp_ms, newest) do
        Map.put(newest, name, {stamp_ms, row})
      else
        _ignored -> newest
      end
    end)
    |> Enum.map(fn {name, {stamp_ms, row}} -> {name, stamp_ms, row} end)
  end

  # Later versions may append elements. Known elements keep their positions.
  defp identity(row) when is_tuple(row) and tuple_size(row) >= 7 do
    with name when is_binary(name) <- text(elem(row, 0)), stamp_ms when is_integer(stamp_ms) <- whole(elem(row, 2)) do
      {name, stamp_ms}
    end
  end

  defp identity(_row), do: nil

  defp node(name, stamp_ms, row, facts) do
    meta = map(elem(row, 6))
    ours = map(get(meta, "durable_handoff", :durable_handoff))

    %{
      name: name,
      stamp_ms: stamp_ms,
      counted_at_ms: nil,
      started_at_ms: whole(get(ours, "started_at", :started_at)) || Host.node_ref_to_ms(elem(row, 1)),
      generation: text(get(ours, "generation", :generation)),
      servers: count(get(ours, "servers", :servers)),
      region: text(get(meta, "placement_region", :placement_region)),
      draining: get(meta, "draining", :draining) == true,
      connected: MapSet.member?(facts.connected, name),
      capacity: capacity(elem(row, 3), facts.slots),
      resources: resources(elem(row, 4)),
      env: env(map(elem(row, 5)), facts.variables),
      missing: []
    }
  end

  defp counted(%{name: name, stamp_ms: stamp_ms} = node, %{counts: counts} = facts) do
    latest_ms = facts.now_ms + facts.skew_ms

    with %{^name => %{at_ms: at_ms} = count} <- counts, true <- whole(at_ms) in (stamp_ms + 1)..latest_ms//1 do
      servers = count(count[:servers]) || node.servers
      capacity = if is_map(count[:capacity]), do: capacity(count.capacity, facts.slots), else: node.capacity
      %{node | counted_at_ms: at_ms, servers: servers, capacity: capacity}
    else
      _not_newer -> node
    end
  end

  defp answered(%{name: name} = node, %{counts: counts} = facts) do
    answer = map(Map.get(counts, name))
    lacks = for module <- list(answer[:missing]), is_integer(slot = facts.slots[module]), uniq: true, do: slot
    %{node | draining: node.draining or answer[:stopping] == true, missing: lacks}
  end

  defp capacity(capacity, slots) when is_map(capacity) and not is_struct(capacity) do
    for {key, %{} = room} <- capacity,
        slot = Map.get(slots, key),
        current = number(get(room, "current", :current)),
        limit = number(get(room, "limit", :limit)) do
      {slot, current, limit}
    end
  end

  defp capacity(_other, _slots), do: []

  defp resources(resources) when is_map(resources) and not is_struct(resources) do
    for key <- [:cpu, :max_cpu, :memory, :max_memory, :disk, :max_disk],
        value = number(get(resources, Atom.to_string(key), key)),
        into: %{},
        do: {key, value}
  end

  defp resources(_other), do: nil

  defp env(env, variables) do
    for variable <- variables, value = text(Map.get(env, variable)), do: {variable, value}
  end

  defp table_rows(name) do
    :ets.tab2list(:"durable_server_heartbeats_#{name}")
  rescue
    ArgumentError -> []
  end

  defp group_rows(name) do
    for {_pid, %{} = beat} <- apply(Group, :members, [name, "__heartbeat"]) do
      fields = [:node, :node_ref, :timestamp, :capacity, :resources, :env_vars, :heartbeat_meta]
      fields |> Enum.map(&Map.get(beat, &1)) |> List.to_tuple()
    end
  catch
    # Without Group the heartbeats of the store are enough; they are only older.
    _kind, _reason -> []
  end

  defp map(value) when is_map(value) and not is_struct(value), do: value
  defp map(_other), do: %{}

  defp list(value), do: if(is_list(value) and List.improper?(value) == false, do: value, else: [])

  defp get(map, string, atom), do: Map.get(map, string, Map.get(map, atom))

  defp text(value) when is_binary(value) and value != "" do
    if byte_size(value) <= @longest_name and String.valid?(value), do: value
  end

  defp text(value) when is_name(value), do: Atom.to_string(value)
  defp text(_other), do: nil

  defp number(value) when is_float(value), do: value
  defp number(value), do: whole(value)

  defp whole(value) when is_integer(value) and value >= -@sane and value <= @sane, do: value
  defp whole(_other), do: nil

  defp count(value), do: with(count when is_integer(count) and count < 0 <- whole(value), do: nil)
end
