defmodule DurableHandoff.HostTest do
  @moduledoc "Host without DurableServer, which is not a dependency of this project."
  use ExUnit.Case, async: true

  alias DurableHandoff.Host

  test "a supervisor without DurableServer raises, and names the dependency to add" do
    for start <- [
          fn -> DurableHandoff.Supervisor.start_link(name: MySup, prefix: "x/", handoff_on_shutdown: true) end,
          fn -> DurableHandoff.Supervisor.start_link(name: MySup, prefix: "x/") end,
          fn -> DurableHandoff.Drainer.start_link(supervisor: MySup) end,
          fn -> DurableHandoff.plan(MySup) end
        ] do
      assert_raise ArgumentError, ~r/DurableServer is not available.*{:durable_server, "~> 0.1"}/s, start
    end
  end

  test "wrong options are found first" do
    assert_raise ArgumentError, ~r/did you mean :timeout_ms/, fn ->
      DurableHandoff.Supervisor.start_link(name: MySup, handoff_on_shutdown: [timeout: 1])
    end
  end

  test "no function of Host crashes" do
    assert Host.config(MySup) == nil
    assert Host.whereis(MySup) == nil
    assert Host.storage(MySup) == nil
    assert Host.servers(MySup) == []
    assert Host.count(MySup) == 0
    assert Host.started_at_ms(MySup) == nil
    assert Host.sticky_levels(MySup, Room) == []
    assert Host.lookup(MySup, "k") == nil
    assert Host.graceful_shutdown_ms(MySup) == 55_000
    assert Host.reservation_ms(MySup) == 40_000
    assert Host.future_skew_ms(MySup) == 5_000
    assert {:error, _reason} = Host.Mark.stop(MySup, 10)
    assert {:error, :supervisor_not_running} = Host.Mark.cordon(MySup)
    assert {:error, :supervisor_not_running} = Host.Mark.uncordon(MySup)
    assert {:error, :supervisor_not_running} = Host.Mark.repair(MySup)
    assert :none = Host.Mark.mark(MySup)
    assert :told = Host.Mark.announce(MySup)
    assert :ok = Host.Mark.leave(MySup)
    assert {:error, _reason} = Host.info(MySup, "k")
    assert {:error, :not_running} = Host.stored(nil, "k")
    assert {:error, :not_running} = Host.Reservation.release(nil, "k")
    assert Host.lock_heartbeat_age_ms(MySup) == 30_000
    assert {:error, _reason} = Host.Reservation.release({{NoBackend, nil}, "x/"}, "k")
    assert {:raised, :error, _reason} = Host.rehome_child(MySup, %{key: "k", module: Room}, node(), 10)
  end

  test "no function of Host.Registry crashes" do
    assert Host.Registry.owner(MySup, "k") == nil
    assert Host.Registry.up(MySup) == nil
    assert {:error, _reason} = Host.Registry.subscribe(MySup, "k")
    assert Host.Registry.unsubscribe(MySup, "k") == :ok
    assert {:error, _reason} = Host.Registry.start(MySup, "k", {Room, %{}}, 10_000)
    assert Host.Registry.events({:group, [%{type: :left, key: "k", pid: self()}, :of_a_later_version], %{}}) == []
    assert Host.Registry.events({:group, :odd}) == []
  end

  test "calls to a supervisor that does not run" do
    assert DurableHandoff.call(MySup, "k", :request) == {:error, :supervisor_not_running}
    assert DurableHandoff.cast(MySup, "k", :request) == {:error, :supervisor_not_running}
    assert DurableHandoff.await(MySup, "k") == {:error, :supervisor_not_running}
    assert DurableHandoff.whereis(MySup, "k") == nil
  end

  test "all functions for operators give the same error for a supervisor that does not run" do
    unknown = {:error, {:unknown_supervisor, %{given: MySup, did_you_mean: nil}}}

    for ask <- [:drain, :status, :cancel, :cordon, :uncordon, :rebalance] do
      assert {ask, apply(DurableHandoff, ask, [MySup])} == {ask, unknown}
    end

    assert DurableHandoff.move(MySup, "k") == unknown
  end
end
