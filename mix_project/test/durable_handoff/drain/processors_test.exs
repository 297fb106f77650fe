defmodule DurableHandoff.Drain.ProcessorsTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Drain.Processors

  # Whatever else this machine does.
  @enough_ms 60_000

  test "a node that answers gives the time of a start, and one that does not is left out" do
    assert start_us = Processors.measure([node(), :"nowhere@127.0.0.1"], @enough_ms)
    assert start_us > 0
  end

  test "without a node that answers nothing is known" do
    assert Processors.measure([]) == nil
    assert Processors.measure([:"nowhere@127.0.0.1"], @enough_ms) == nil
  end
end
