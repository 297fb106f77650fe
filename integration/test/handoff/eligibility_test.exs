defmodule Handoff.EligibilityTest do
  @moduledoc "The engine's placement rules give the same nodes as DurableServer's, for random clusters."

  use ClusterCase, nodes: 1

  alias DurableHandoff.{Host.View, Native}

  @views 400
  @modules [Servers.Counter, Servers.Troublesome]
  @variables ["REGION", "ZONE"]

  @tag after_0_1_4: "this version accepts heartbeats from the future"
  test "the engine and DurableServer choose the same nodes in the same order, for random clusters", context do
    seed = :rand.uniform(0xFFFFFFFF)
    :rand.seed(:exsss, {seed, 1, 1})

    # DurableServer ignores the delays here, so all levels are open. It ignores nodes whose name does not
    # exist as an atom.
    delays = for module <- @modules, do: {module, [REGION: 0, ZONE: 0, any: 0]}
    Enum.each(1..12, &String.to_atom("n#{&1}@host"))

    # Only this test may change the table: the store has no heartbeat except the node's own.
    opts = Keyword.merge(context.opts, quiet(context))
    start_supervised!({DurableServer.Supervisor, opts ++ [sticky_placement: Map.new(delays)]})
    wait_until(fn -> Host.ready?(context.sup) end)
    table = :"durable_server_heartbeats_#{context.sup}"
    [own] = :ets.lookup(table, Atom.to_string(node()))

    for round <- 1..@views do
      :ets.delete_all_objects(table)
      :ets.insert(table, [own | random_rows()])
      module = Enum.random(@modules)
      {levels, ours} = random_levels(delays[module])

      theirs = LifecycleManager.find_eligible_nodes(context.sup, module, limit: 1_000, sticky_placement: levels)
      view = View.build(context.sup, @modules, @variables)

      query = %{
        source: Atom.to_string(node()),
        module: Enum.find_index(@modules, &(&1 == module)),
        sticky: ours,
        max_age_ms: 50_000,
        future_skew_ms: 5_000
      }

      assert Native.eligible(view, query) == Enum.map(theirs, &Atom.to_string/1),
             "seed #{seed}, round #{round}: #{inspect(:ets.tab2list(table), limit: :infinity)} #{inspect(levels)}"
    end
  end

  defp random_rows do
    now = System.system_time(:millisecond)

    # Each name and each stamp occurs once, because the order of equal stamps is not part of DurableServer's
    # contract.
    for n <- Enum.take_random(1..12, :rand.uniform(9)) do
      age = 16 * div(random_age(), 16) + n

      {"n#{n}@host", (now - 100_000) * 1_000, now - age, random_capacity(), random_resources(), random_env(),
       Enum.random([nil, %{}, %{"draining" => true}, %{"draining" => false}, %{"version" => "1"}])}
    end
  end

  # Far from both limits, because time passes between the two answers.
  defp random_age do
    fresh = :rand.uniform(30_000)
    Enum.random([fresh, fresh, 52_000 + :rand.uniform(9_000), -:rand.uniform(3_900), -60_000])
  end

  defp random_capacity do
    Enum.random([
      nil,
      %{},
      %{total: random_room()},
      %{:total => random_room(), Servers.Counter => random_room()},
      %{Servers.Counter => random_room(), Servers.Troublesome => random_room()}
    ])
  end

  defp random_room, do: %{current: :rand.uniform(12) - 1, limit: Enum.random([1, 10, 100])}

  defp random_resources do
    if :rand.uniform(3) == 1 do
      nil
    else
      for key <- [:cpu, :max_cpu, :memory, :max_memory, :disk, :max_disk], :rand.uniform(2) == 1, into: %{} do
        {key, Enum.random([10, 50, 79.9, 80, 100])}
      end
    end
  end

  defp random_env do
    for variable <- @variables, :rand.uniform(3) > 1, into: %{}, do: {variable, Enum.random(["a", "b", nil])}
  end

  # The same levels as DurableServer stores them and as the engine reads them.
  defp random_levels(delays) do
    case :rand.uniform(4) do
      1 ->
        {Enum.random([nil, []]), []}

      count ->
        levels =
          for {variable, delay_ms} <- Enum.take(delays, count - 1),
              do: {variable, if(variable == :any, do: :any, else: Enum.random(["a", "b"])), delay_ms}

        {Enum.map(levels, &as_stored/1), Enum.map(levels, &as_ours/1)}
    end
  end

  defp as_stored({:any, :any, _delay_ms}), do: %{env_var: :any, value: :any}
  defp as_stored({variable, value, _delay_ms}), do: %{env_var: Atom.to_string(variable), value: value}

  defp as_ours({:any, :any, delay_ms}), do: {:any, delay_ms}
  defp as_ours({variable, value, delay_ms}), do: {:env, Atom.to_string(variable), value, delay_ms}
end
