defmodule DurableHandoff.Client.RequestTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Client.Request

  test "nothing is sent to a process whose node is not connected" do
    node = "other@nowhere"
    # A pid in the external term format (NEW_PID_EXT).
    elsewhere = :erlang.binary_to_term(<<131, 88, 119, byte_size(node), node::binary, 1::32, 0::32, 1::32>>)
    assert Request.call(elsewhere, :add, 0) == :unreachable
    assert Request.cast(elsewhere, :add) == :unreachable
  end
end
