defmodule DurableHandoff.Host.CountTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Host.Count

  test "an unreachable node, and one without the supervisor, have no entry" do
    assert Count.ask(:no_such_supervisor, [], [node(), :nobody@nowhere], 1_000) == %{}
  end
end
