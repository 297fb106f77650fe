defmodule DurableHandoff.Host.CountTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Host.Count

  test "a node without the supervisor takes no servers, and one that cannot be reached has no entry" do
    answers = Count.ask(:no_such_supervisor, [], [node(), :nobody@nowhere], 10_000)
    assert answers == %{Atom.to_string(node()) => %{absent: true, stopping: true}}
    assert Count.absent(answers) == [Atom.to_string(node())]
  end

  test "a node whose connection is lost has not answered" do
    own = Atom.to_string(node())
    assert {answers, ["nobody@nowhere"]} = Count.ask_each(:no_such_supervisor, [], [node(), :nobody@nowhere], 10_000)
    assert Map.keys(answers) == [own]
  end
end
