defmodule DurableHandoff.LogTest do
  use ExUnit.Case, async: true

  @moduletag :capture_log

  alias DurableHandoff.{Log, LogEvents}

  # As OTP, and Elixir from 1.15 on, configure their handlers.
  @not_of_another_node {&:logger_filters.remote_gl/2, :stop}

  test "a process that another node has started logs: the line is this node's, and no handler drops it" do
    name = "other@nowhere"
    # A pid in the external term format (NEW_PID_EXT).
    elsewhere = :erlang.binary_to_term(<<131, 88, 119, byte_size(name), name::binary, 1::32, 0::32, 1::32>>)

    {:ok, [line]} =
      LogEvents.collect(fn ->
        leader = Process.group_leader()
        Process.group_leader(self(), elsewhere)
        Log.warning(:not_moved, MySup, "could not move it", key: "k")
        Process.group_leader(self(), leader)
        :ok
      end)

    assert {:warning, :not_moved, %{key: "k"} = metadata} = line
    {filter, action} = @not_of_another_node
    event = %{level: :warning, msg: {:string, ""}, meta: metadata}
    assert filter.(event, action) == :ignore
  end
end
