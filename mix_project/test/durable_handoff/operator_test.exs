defmodule DurableHandoff.OperatorTest do
  use ExUnit.Case

  alias DurableHandoff.{Operator, Options, Status}

  # `max_frame` in rust_node/src/distribution/limits.rs.
  @frame 1024 * 1024

  test "a description has as many supervisors as fit into one frame of a Rust node" do
    # A long release stands for many supervisors.
    options = Options.new!(generation: String.duplicate("7", 4_000))
    for n <- 1..300, do: Status.new(:"Operated#{n}", options)
    Operator.describe(1, self())
    assert_receive {:durable_handoff, 1, :description, 1, %{supervisors: [_ | _]}} = description
    assert :erlang.external_size(description) in div(@frame, 2)..@frame
  end
end
