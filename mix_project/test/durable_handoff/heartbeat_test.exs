defmodule DurableHandoff.HeartbeatTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Heartbeat

  defp meta(options), do: Heartbeat.add([name: MySup] ++ options, "7")[:heartbeat_meta]

  test "heartbeat_meta that is absent, a map or a function becomes a function that adds this library's part" do
    assert %{"durable_handoff" => %{"generation" => "7", "started_at" => nil, "servers" => 0}} = meta([]).()
    assert %{"a" => 1, "durable_handoff" => %{}} = meta(heartbeat_meta: %{"a" => 1}).()
    assert %{"a" => 1, "durable_handoff" => %{}} = meta(heartbeat_meta: fn -> %{"a" => 1} end).()
  end

  test "other options stay unchanged" do
    assert Keyword.delete(Heartbeat.add([name: MySup, prefix: "x/", odd: 1], "7"), :heartbeat_meta) == [
             name: MySup,
             prefix: "x/",
             odd: 1
           ]
  end

  test "an exception of a user's function is passed on" do
    assert_raise RuntimeError, "boom", meta(heartbeat_meta: fn -> raise "boom" end)
  end

  test "a user's function that does not return a map keeps its result" do
    for odd <- [nil, :odd, [a: 1], "x"], do: assert(meta(heartbeat_meta: fn -> odd end).() == odd)
  end

  test "heartbeat_meta that is neither a map nor a function is passed to DurableServer unchanged" do
    for odd <- ["odd", [a: 1], :odd, &Function.identity/1], do: assert(meta(heartbeat_meta: odd) == odd)
  end

  test "a \"durable_handoff\" key of the user's own is kept" do
    assert meta(heartbeat_meta: %{"durable_handoff" => 1}).() == %{"durable_handoff" => 1}
  end
end
