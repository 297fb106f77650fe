defmodule DurableHandoff.OperatorTest do
  use ExUnit.Case

  alias DurableHandoff.{Operator, Options, Status}

  # `max_frame` in rust_node/src/distribution/limits.rs.
  @frame 1024 * 1024

  test "a description has as many supervisors as fit into one frame of a Rust node" do
    # A long release stands for many supervisors, each of which costs searches for DurableServer's modules.
    options = %{Options.new!(true) | generation: String.duplicate("7", 40_000)}
    for n <- 1..30, do: Status.new(:"Operated#{n}", options)
    Operator.describe(1, self())
    assert_receive {:durable_handoff, 1, :description, 1, %{supervisors: [_ | _]}} = description
    assert :erlang.external_size(description) in div(@frame, 2)..@frame
  end

  test "a refusal fits into a text of a Rust node, whatever the request has in it" do
    # Characters of many codepoints each: a letter with accents.
    name = String.duplicate("e" <> String.duplicate("\u0301", 202), 10)
    Operator.drain(3, self(), %{supervisor: name, timeout_ms: nil, dry_run: false, plan: false})
    assert_receive {:durable_handoff, 1, :refuse, 3, {:invalid, ["no supervisor e" <> _rest = text]}}
    # `MAX_TEXT` in native/etf/src/read.rs.
    assert byte_size(text) <= 4_096 and String.valid?(text)
  end

  # Those of native/handoff_wire/src/operator.rs.
  test "a description names the flags of the command rebalance that the node does not ignore" do
    Operator.describe(2, self())
    assert_receive {:durable_handoff, 1, :description, 2, %{knows: knows}}
    assert Enum.sort(knows) == ["rebalance_after_ms", "rebalance_settings"]
  end
end
