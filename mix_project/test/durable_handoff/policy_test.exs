defmodule DurableHandoff.PolicyTest do
  use ExUnit.Case, async: true

  import DurableHandoff.Eventually, only: [wait_until: 2]

  alias DurableHandoff.{Options, Policy}

  defp decide(server \\ %{}, options) do
    Policy.decide(Map.merge(%{key: "k", module: Room, meta: %{}}, Map.new(server)), Options.new!(options))
  end

  test "without a policy everything moves with priority 0" do
    assert decide([]) == {{:move, 0}, nil}
  end

  test "modules: false excludes, a number is the priority, true and other modules keep the default" do
    assert decide(modules: %{Room => false}) == {:stay, nil}
    assert decide(modules: %{Room => [priority: 10]}) == {{:move, 10}, nil}
    assert decide(modules: %{Room => true}) == {{:move, 0}, nil}
    assert decide(modules: %{Other => false}) == {{:move, 0}, nil}
  end

  describe "the server's own meta takes precedence" do
    test "over modules" do
      assert decide([meta: %{handoff: false}], modules: %{Room => [priority: 9]}) == {:stay, nil}
      assert decide([meta: %{handoff: [priority: 5]}], modules: %{Room => false}) == {{:move, 5}, nil}
      assert decide([meta: %{handoff: true}], modules: %{Room => [priority: 9]}) == {{:move, 9}, nil}
    end

    test "over eligible, which is not called" do
      options = [eligible: fn _server -> raise "not to be asked" end]
      assert decide([meta: %{handoff: false}], options) == {:stay, nil}
      assert decide([meta: %{handoff: [priority: -1]}], options) == {{:move, -1}, nil}
      assert decide([meta: %{handoff: [priority: 1]}], eligible: :permanent) == {{:move, 1}, nil}
    end

    test "but is ignored with a warning when it is invalid" do
      for entry <- [:no, "false", [priority: :high], [prio: 1], %{priority: 1}, [priority: 10_000_000_000], [1], {1}] do
        assert {{:move, 3}, problem} = decide([meta: %{handoff: entry}], modules: %{Room => [priority: 3]})
        assert problem =~ "expected true, false or [priority: integer]"
      end
    end

    test "for any other meta" do
      for meta <- [nil, [], [handoff: false], "handoff", %{"handoff" => false}, %{other: 1}, {:handoff, false}] do
        assert decide([meta: meta], []) == {{:move, 0}, nil}
      end
    end
  end

  describe "eligible" do
    test "a function decides, and may set the priority" do
      eligible = fn %{key: key, module: Room, meta: %{}} -> key end
      assert decide([key: true], eligible: eligible) == {{:move, 0}, nil}
      assert decide([key: false], eligible: eligible) == {:stay, nil}
      assert decide([key: 7], eligible: eligible) == {{:move, 7}, nil}
    end

    test "true keeps the module's priority, a number replaces it" do
      assert decide(modules: %{Room => [priority: 4]}, eligible: fn _ -> true end) == {{:move, 4}, nil}
      assert decide(modules: %{Room => [priority: 4]}, eligible: fn _ -> 1 end) == {{:move, 1}, nil}
    end

    test "a function that raises, exits or throws excludes no server" do
      for eligible <- [fn _ -> raise "boom" end, fn _ -> exit(:boom) end, fn _ -> throw(:boom) end] do
        assert {{:move, 0}, problem} = decide(eligible: eligible)
        assert problem =~ "eligible failed"
        assert problem =~ "boom"
      end
    end

    test "a function that returns an invalid value excludes no server" do
      for answer <- [nil, :ok, "true", 1.5, 10_000_000_000] do
        assert {{:move, 0}, problem} = decide(eligible: fn _ -> answer end)
        assert problem =~ "eligible returned #{inspect(answer)}"
      end
    end

    test "is not called for an excluded module" do
      assert decide(modules: %{Room => false}, eligible: fn _ -> raise "not to be asked" end) == {:stay, nil}
    end

    test ":permanent decides by the stored state" do
      assert decide(modules: %{Room => [priority: 2]}, eligible: :permanent) == {{:ask_store, 2}, nil}
    end
  end

  test "a function that waits, or whose process dies, excludes no server; what it has decided before counts" do
    eligible = fn
      %{key: "waits"} -> Process.sleep(:infinity)
      %{key: "dies"} -> Process.exit(self(), :kill)
      %{key: key} -> key != "stays"
    end

    none = "eligible gave no answer in time"
    servers = for key <- ["stays", "dies", "moves", "waits", "late"], do: %{key: key, module: Room, meta: %{}}

    # If this VM is delayed, the time is up before the function that waits is called. Then the test repeats.
    again = fn ->
      decided = Policy.decide_each(servers, Options.new!(eligible: eligible), 300)
      assert for({%{key: key}, _decided} <- decided, do: key) == for(%{key: key} <- servers, do: key)
      [stays, dies, moves, waits, late] = for {_server, decided} <- decided, do: decided
      assert {dies, waits, late} == {{{:move, 0}, none}, {{:move, 0}, none}, {{:move, 0}, none}}
      {stays, moves} == {{:stay, nil}, {{:move, 0}, nil}}
    end

    wait_until(again, 50)
  end
end
