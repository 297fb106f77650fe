defmodule DurableHandoff.Host.RehomeTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Host.Rehome

  # DurableServer is not here, so a call of it would raise.
  test "nothing is stopped for a target without a connection, whose name need not be an atom" do
    server = %{key: "k", module: Room, pid: spawn_link(fn -> Process.sleep(:infinity) end), since_ms: nil}

    for target <- ["nobody@nowhere", "never_seen_#{System.unique_integer([:positive])}@nowhere"] do
      assert Rehome.run(Sup, server, :running, target, 1_000) == {{:untouched, :target}, :not_connected}
      assert Rehome.run(Sup, server, :displaced, target, 1_000) == {{:displaced, :target}, :not_connected}
    end

    assert Process.alive?(server.pid)
  end
end
