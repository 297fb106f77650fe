defmodule DurableHandoff.Host.CountTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Host.Count

  test "a node that cannot be asked, and one without the supervisor, are missing" do
    assert Count.ask(:no_such_supervisor, [], [node(), :nobody@nowhere], 1_000) == %{}
  end
end
