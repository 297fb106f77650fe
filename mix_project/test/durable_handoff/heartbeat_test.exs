defmodule DurableHandoff.HeartbeatTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Heartbeat

  defp meta(options), do: Heartbeat.add([name: MySup] ++ options, "7")[:heartbeat_meta]

  test "no meta, a map and a function all become a function with our part" do
    assert %{"durable_handoff" => %{"generation" => "7", "started_at" => nil, "servers" => 0}} = meta([]).()
    assert %{"a" => 1, "durable_handoff" => %{}} = meta(heartbeat_meta: %{"a" => 1}).()
    assert %{"a" => 1, "durable_handoff" => %{}} = meta(heartbeat_meta: fn -> %{"a" => 1} end).()
  end

  test "the other options stay as they are" do
    assert Keyword.delete(Heartbeat.add([name: MySup, prefix: "x/", odd: 1], "7"), :heartbeat_meta) == [
             name: MySup,
             prefix: "x/",
             odd: 1
           ]
  end

  test "a user's function that raises, raises as before" do
    assert_raise RuntimeError, "boom", meta(heartbeat_meta: fn -> raise "boom" end)
  end

  test "a user's function that returns no map returns it as before" do
    for odd <- [nil, :odd, [a: 1], "x"], do: assert(meta(heartbeat_meta: fn -> odd end).() == odd)
  end

  test "a meta that is neither map nor function goes to DurableServer as it is" do
    for odd <- ["odd", [a: 1], :odd, &Function.identity/1], do: assert(meta(heartbeat_meta: odd) == odd)
  end

  test "a \"durable_handoff\" key of the user's own is kept" do
    assert meta(heartbeat_meta: %{"durable_handoff" => 1}).() == %{"durable_handoff" => 1}
  end
end
