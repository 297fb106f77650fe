defmodule DurableHandoff.Client.HintsTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Client.Hints

  test "the latest hint for a key counts" do
    hints = Hints.new(0) |> Hints.put("k", pid(1), 0) |> Hints.put("k", pid(2), 1)
    assert {second, hints} = Hints.get(hints, "k", 2)
    assert second == pid(2)
    assert Hints.count(hints) == 1
    assert {nil, _hints} = hints |> Hints.drop("k") |> Hints.get("k", 3)
  end

  test "an unused hint is kept for 30 to 60 seconds" do
    hints = Hints.new(0) |> Hints.put("k", pid(1), 29_999_000)
    assert {_pid, _hints} = Hints.get(hints, "k", 59_999_000)
    assert {nil, _hints} = Hints.get(hints, "k", 89_999_000)
    assert {nil, _hints} = Hints.get(hints, "k", 3_600_000_000)
  end

  test "a hint is kept while it is used" do
    hints =
      Enum.reduce(0..20, Hints.new(0) |> Hints.put("k", pid(1), 0), fn n, hints ->
        assert {pid, hints} = Hints.get(hints, "k", n * 25_000_000)
        assert pid == pid(1)
        hints
      end)

    assert Hints.count(hints) == 1
  end

  test "the number of hints is bounded, and the latest are kept" do
    many = 3 * Hints.max()
    hints = Enum.reduce(1..many, Hints.new(0), &Hints.put(&2, &1, pid(&1), 0))
    assert Hints.count(hints) <= Hints.max()
    assert {pid, _hints} = Hints.get(hints, many, 0)
    assert pid == pid(many)
  end

  test "several hints for one key count as one" do
    hints = Enum.reduce(1..(3 * Hints.max()), Hints.new(0), &Hints.put(&2, "k", pid(&1), 0))
    assert Hints.count(hints) == 1
  end

  defp pid(n), do: :c.pid(0, rem(n, 0x7FFF), div(n, 0x7FFF))
end
