defmodule DurableHandoff.Leftovers.AdoptionTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Leftovers.{Adoption, Message}

  @source :source@somewhere

  defp adoption(servers, line \\ [self()], now_us \\ 0) do
    {:ok, adoption} = servers |> offer(line) |> Adoption.new(self(), now_us)
    adoption
  end

  defp offer(servers, line), do: Message.offer(make_ref(), @source, servers, line, length(line))

  defp process, do: spawn(fn -> :ok end)

  describe "an offer from another node" do
    test "too many servers are refused" do
      servers = List.duplicate({"k", Some.Module}, Adoption.most_servers() + 1)
      assert {:error, :malformed} = servers |> offer([self()]) |> Adoption.new(self(), 0)
      assert %Adoption{} = servers |> tl() |> adoption()
    end

    test "too many receivers, or a list without this one, are refused" do
      for line <- [List.duplicate(self(), 9), [process()], []] do
        assert {:error, :malformed} = [{"k", Some.Module}] |> offer(line) |> Adoption.new(self(), 0)
      end
    end

    test "a later version is refused as such, not misread" do
      assert {:error, :unsupported} = Adoption.new(%{offer([], [self()]) | version: 2}, self(), 0)
    end

    test "anything of another shape is refused" do
      message = offer([{"k", Some.Module}], [self()])

      for wrong <- [
            nil,
            %{},
            %{message | id: 1},
            %{message | source: "a@h"},
            %{message | source: node()},
            %{message | servers: [{"k", Some.Module} | :improper]},
            %{message | servers: [{"k", nil}]},
            %{message | servers: ["k"]},
            %{message | line: [self() | :improper]},
            %{message | line: [:me]},
            %{message | receivers: 0},
            %{message | receivers: :all}
          ] do
        assert {:error, :malformed} = Adoption.new(wrong, self(), 0)
      end
    end
  end

  test "it is the receiver's turn when all earlier receivers are gone" do
    [first, second, last] = for _ <- 1..3, do: process()
    adoption = adoption([{"k", Some.Module}], [first, second, self(), last])
    refute Adoption.mine?(adoption)
    adoption = adoption |> Adoption.without(second) |> Adoption.without(last)
    refute Adoption.mine?(adoption)
    assert adoption.later == []
    assert adoption |> Adoption.without(first) |> Adoption.mine?()
  end

  test "servers forwarded earlier are not started a second time after a takeover" do
    adoption = adoption([{"a", Some.Module}, {"b", Some.Module}])
    assert {adoption, ["b"]} = Adoption.activate(adoption, ["b", "unknown"])
    adoption = Adoption.put(adoption, "b", phase: :trying)
    assert {adoption, ["a"]} = Adoption.activate(adoption, :all)
    assert adoption.entries["b"].phase == :trying
    assert {2, []} = {adoption.total, adoption.pending}
  end

  test "every server is counted once, with its reason" do
    {adoption, _keys} = ["a", "b", "c", "d"] |> Enum.map(&{&1, Some.Module}) |> adoption() |> Adoption.activate(:all)

    adoption =
      adoption
      |> Adoption.settle("a", :started)
      |> Adoption.settle("b", :running)
      |> Adoption.settle("c", {:dropped, :failed})

    assert "started 1 of 4 servers that source@somewhere left (run elsewhere 1, failed 1)" = to_string(adoption)
    adoption = Adoption.settle_all(adoption, {:dropped, :expired})
    assert adoption.dropped == %{failed: 1, expired: 1}
    assert Adoption.size(adoption) == 0
  end

  test "it expires after five minutes" do
    refute Adoption.expired?(adoption([], [self()], 1_000), 300_000_999)
    assert Adoption.expired?(adoption([], [self()], 1_000), 300_001_000)
  end
end
