defmodule DurableHandoff.Leftovers.ShareTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Leftovers.Share

  @source :source@somewhere

  defp share(servers, line \\ [self()], now_ms \\ 0) do
    {:ok, share} = Share.new(Share.message(make_ref(), @source, servers, line), self(), now_ms)
    share
  end

  defp process, do: spawn(fn -> :ok end)

  describe "what is sent by others" do
    test "a list that is too long is refused" do
      servers = List.duplicate({"k", Some.Module}, Share.most_servers() + 1)
      assert {:error, :malformed} = Share.new(Share.message(make_ref(), @source, servers, [self()]), self(), 0)
      assert {:ok, _share} = Share.new(Share.message(make_ref(), @source, tl(servers), [self()]), self(), 0)
    end

    test "a line that is too long, or without the receiver, is refused" do
      for line <- [List.duplicate(self(), 9), [process()], []] do
        message = Share.message(make_ref(), @source, [{"k", Some.Module}], line)
        assert {:error, :malformed} = Share.new(message, self(), 0)
      end
    end

    test "a later version is told so, not misread" do
      message = Share.message(make_ref(), @source, [], [self()])
      assert {:error, :unsupported} = Share.new(%{message | version: 2}, self(), 0)
    end

    test "anything of another shape is refused" do
      message = Share.message(make_ref(), @source, [{"k", Some.Module}], [self()])

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
            %{message | line: [:me]}
          ] do
        assert {:error, :malformed} = Share.new(wrong, self(), 0)
      end
    end
  end

  test "it is the receiver's turn when all before it are gone" do
    [first, second, last] = for _ <- 1..3, do: process()
    share = share([{"k", Some.Module}], [first, second, self(), last])
    refute Share.mine?(share)
    share = share |> Share.without(second) |> Share.without(last)
    refute Share.mine?(share)
    assert share.later == []
    assert share |> Share.without(first) |> Share.mine?()
  end

  test "what was passed on before is not begun a second time when all of it is taken over" do
    share = share([{"a", Some.Module}, {"b", Some.Module}])
    assert {share, ["b"]} = Share.activate(share, ["b", "unknown"])
    share = Share.put(share, "b", phase: :trying)
    assert {share, ["a"]} = Share.activate(share, :all)
    assert share.entries["b"].phase == :trying
    assert {2, []} = {share.total, share.standby}
  end

  test "every server is counted once, with its reason" do
    {share, _keys} = ["a", "b", "c", "d"] |> Enum.map(&{&1, Some.Module}) |> share() |> Share.activate(:all)

    share =
      share |> Share.settle("a", :started) |> Share.settle("b", :running) |> Share.settle("c", {:dropped, :failed})

    assert "started 1 of 4 servers that source@somewhere left (run elsewhere 1, failed 1)" = to_string(share)
    share = Share.settle_all(share, {:dropped, :expired})
    assert share.dropped == %{failed: 1, expired: 1}
    assert Share.size(share) == 0
  end

  test "it expires after five minutes" do
    refute Share.expired?(share([], [self()], 1_000), 300_999)
    assert Share.expired?(share([], [self()], 1_000), 301_000)
  end
end
