defmodule DurableHandoff.Drain.ProcessorsTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Drain.Processors

  # A limit that is long enough on a busy machine.
  @enough_ms 60_000

  test "measures starts on nodes that answer, and leaves out others" do
    assert start_us = Processors.measure([node(), :"nowhere@127.0.0.1"], @enough_ms)
    assert start_us > 0
  end

  test "nil if no node answers" do
    assert Processors.measure([]) == nil
    assert Processors.measure([:"nowhere@127.0.0.1"], @enough_ms) == nil
  end
end
