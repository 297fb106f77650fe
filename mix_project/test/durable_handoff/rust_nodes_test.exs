defmodule DurableHandoff.RustNodesTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.RustNodes

  test "with 64 Rust nodes another one is refused, and gets no welcome" do
    nodes = %RustNodes{monitors: Map.new(1..64, &{make_ref(), :"rust#{&1}@nowhere"})}
    assert RustNodes.announced(nodes, self(), "1.0") == :full
    refute_received _welcome
  end
end
