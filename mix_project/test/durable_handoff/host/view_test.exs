defmodule DurableHandoff.Host.ViewTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.{EngineTerms, Native}
  alias DurableHandoff.Host.View

  @now 1_800_000_000_000
  # As a supervisor's start: microseconds.
  @ref (@now - 60_000) * 1_000

  defp facts(given \\ %{}) do
    Map.merge(
      %{
        now_ms: @now,
        skew_ms: 5_000,
        connected: MapSet.new(["a@h"]),
        slots: View.slots([Room, Cache]),
        counts: %{},
        variables: ["REGION"]
      },
      Map.new(given)
    )
  end

  defp row(given \\ []) do
    fields = [name: "a@h", ref: @ref, stamp: @now - 100, capacity: nil, resources: nil, env: nil, meta: nil]
    List.to_tuple(for {name, default} <- fields, do: Keyword.get(given, name, default))
  end

  defp one(row, facts \\ facts()) do
    assert %{nodes: [node]} = View.from([row], facts)
    node
  end

  test "a minimal heartbeat" do
    %{nodes: [empty]} = EngineTerms.view(["a@h"])
    assert one(row()) == %{empty | stamp_ms: @now - 100, started_at_ms: @now - 60_000}
  end

  describe "a node that was asked" do
    @meta %{"draining" => true, "durable_handoff" => %{"servers" => 5}}
    @limits %{total: %{current: 5, limit: 10}}

    defp asked(count), do: one(row(capacity: @limits, meta: @meta), facts(counts: %{"a@h" => count}))

    test "its answer replaces the numbers of an older heartbeat, and nothing else" do
      node = asked(%{at_ms: @now - 50, servers: 7, capacity: %{total: %{current: 7, limit: 10}}})
      assert %{counted_at_ms: at_ms, stamp_ms: stamp_ms, servers: 7, capacity: [{:total, 7, 10}], draining: true} = node
      assert {at_ms, stamp_ms} == {@now - 50, @now - 100}
    end

    test "a heartbeat that came after its answer counts" do
      assert %{counted_at_ms: nil, servers: 5} = asked(%{at_ms: @now - 100, servers: 7, capacity: nil})
    end

    test "an answer with a future time or an unknown shape is ignored" do
      for at_ms <- [@now + 5_001, nil, "1", 1.0e300] do
        assert %{counted_at_ms: nil, servers: 5} = asked(%{at_ms: at_ms, servers: 7, capacity: nil})
      end

      assert %{servers: 5, capacity: [{:total, 5, 10}]} = asked(%{at_ms: @now, servers: -1, capacity: :none})
    end

    test "a node that stops counts as draining, even by an old answer" do
      for at_ms <- [@now - 50, @now - 100_000] do
        facts = facts(counts: %{"a@h" => %{at_ms: at_ms, servers: 7, capacity: nil, stopping: true, missing: []}})
        assert %{draining: true} = one(row(), facts)
      end
    end

    test "modules that it lacks are encoded by their numbers" do
      answer = %{at_ms: @now, servers: 7, capacity: nil, stopping: false, missing: [Cache, Unasked, Cache]}
      assert %{draining: false, missing: [1]} = one(row(), facts(counts: %{"a@h" => answer}))
    end

    test "an invalid answer about modules or stopping is ignored" do
      for odd <- [nil, :all, %{}, [Room | Cache], ["x"], 7] do
        answer = %{at_ms: @now, servers: 7, capacity: nil, stopping: odd, missing: odd}
        assert %{draining: false, missing: []} = one(row(), facts(counts: %{"a@h" => answer}))
      end
    end

    test "a node without a heartbeat stays unknown after an answer" do
      assert %{nodes: []} = View.from([], facts(counts: %{"a@h" => %{at_ms: @now, servers: 1, capacity: nil}}))
    end
  end

  test "a heartbeat with all fields" do
    node =
      one(
        row(
          capacity: %{
            :total => %{current: 5, limit: 10},
            Room => %{current: 1, limit: 2},
            Unasked => %{current: 0, limit: 1}
          },
          resources: %{cpu: 12.5, max_cpu: 80, memory: nil},
          env: %{"REGION" => "ord", "OTHER" => "x"},
          meta: %{
            "draining" => true,
            "placement_region" => "ord",
            "durable_handoff" => %{"generation" => "2", "started_at" => 1_799_999_999_000, "servers" => 5}
          }
        )
      )

    assert Enum.sort(node.capacity) == [{0, 1, 2}, {:total, 5, 10}]
    assert node.resources == %{cpu: 12.5, max_cpu: 80}
    assert node.env == [{"REGION", "ord"}]
    assert %{draining: true, region: "ord", generation: "2", started_at_ms: 1_799_999_999_000, servers: 5} = node
  end

  test "keys that came back from the store as strings" do
    node =
      one(
        row(
          capacity: %{"total" => %{"current" => 5, "limit" => 10}, "Elixir.Cache" => %{"current" => 1, "limit" => 2}},
          resources: %{"cpu" => 1}
        )
      )

    assert Enum.sort(node.capacity) == [{1, 1, 2}, {:total, 5, 10}]
    assert node.resources == %{cpu: 1}
  end

  describe "which heartbeat counts" do
    test "the newer of two, in either order" do
      old = row(stamp: @now - 900, meta: %{"draining" => false})
      new = row(stamp: @now - 100, meta: %{"draining" => true})
      assert %{nodes: [%{draining: true}]} = View.from([old, new], facts())
      assert %{nodes: [%{draining: true}]} = View.from([new, old], facts())
    end

    test "one too far in the future does not hide a valid one" do
      future = row(stamp: @now + 5_001, meta: %{"draining" => true})
      good = row(stamp: @now - 100)
      assert %{nodes: [%{draining: false}]} = View.from([good, future], facts())
      assert %{nodes: [%{draining: false}]} = View.from([future, good], facts())
      assert %{nodes: []} = View.from([future], facts())
    end

    test "one within the tolerance" do
      assert %{nodes: [%{stamp_ms: stamp}]} = View.from([row(stamp: @now + 5_000)], facts())
      assert stamp == @now + 5_000
    end
  end

  test "a node that is not connected" do
    refute one(row(), facts(connected: MapSet.new())).connected
  end

  test "invalid rows are left out" do
    junk = [
      nil,
      :row,
      {},
      {"a@h"},
      row(name: nil),
      row(name: ""),
      row(name: 7),
      row(name: <<255, 254>>),
      row(name: String.duplicate("n", 256)),
      row(stamp: nil),
      row(stamp: "now"),
      row(stamp: 1.0e12),
      row(stamp: -Integer.pow(2, 80))
    ]

    assert View.from(junk, facts()).nodes == []
    assert [%{name: "a@h"}] = View.from(junk ++ [row()], facts()).nodes
  end

  test "a longer row of a later version" do
    assert one(Tuple.insert_at(row(), 7, :more)).name == "a@h"
  end

  @junk [
    nil,
    true,
    0,
    -1,
    1.5,
    "junk",
    <<255>>,
    :junk,
    [],
    [1 | 2],
    {},
    %{},
    %{1 => 2},
    %{total: 1},
    %{total: %{current: "5", limit: nil}},
    %{total: %{current: Integer.pow(2, 80), limit: 1}},
    %{"durable_handoff" => "2"},
    %{"durable_handoff" => %{"generation" => 2, "started_at" => "then", "servers" => -1}},
    %{"durable_handoff" => %{"generation" => <<255>>, "started_at" => Integer.pow(2, 80), "servers" => 1.5}},
    %{"placement_region" => %{}, "draining" => "yes"},
    %{"REGION" => 7},
    %{cpu: "12", max_cpu: nil, disk: Integer.pow(2, 80)},
    ~D[2020-01-01]
  ]

  test "an invalid field counts as absent, and the engine accepts the rest" do
    for field <- [:ref, :capacity, :resources, :env, :meta], junk <- @junk do
      node = one(row([{field, junk}]))
      assert node.name == "a@h"
      assert is_list(node.capacity) and is_list(node.env)
      refute node.draining

      assert eligible(%{now_ms: @now, nodes: [node]}) == ["a@h"], "#{field}: #{inspect(junk)}"
    end
  end

  defp eligible(view) do
    Native.eligible(view, %{source: "b@h", module: 0, sticky: [], max_age_ms: 50_000, future_skew_ms: 5_000})
  end

  test "random terms in all fields never raise" do
    seed = {System.unique_integer([:positive]), 2, 3}
    :rand.seed(:exsss, seed)

    for _round <- 1..500 do
      rows =
        for _row <- 1..:rand.uniform(5) do
          fields = Tuple.to_list(row())
          List.to_tuple(for field <- fields, do: if(:rand.uniform(3) == 1, do: Enum.random(@junk), else: field))
        end

      assert is_list(rows |> View.from(facts()) |> eligible()), "seed #{inspect(seed)}"
    end
  end

  test "without DurableServer the view is empty" do
    assert %{nodes: []} = View.build(:no_such_supervisor, [Room], ["REGION"])
  end
end
