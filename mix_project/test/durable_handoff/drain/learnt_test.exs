defmodule DurableHandoff.Drain.LearntTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.{Clock, Drain.Learnt, LogEvents}

  @learnt %{limit: 8, latency_us: 40_000, knee: true}
  @minute_us 60_000_000

  defp get(learnt_us), do: Learnt.handle_call({:get, "store"}, nil, %Learnt{stores: %{"store" => {@learnt, learnt_us}}})

  # Without the limit of a drain, which waits half a second.
  defp learnt(storage, max_concurrency), do: Learnt.get(storage, max_concurrency, :infinity)

  test "a measurement is not used if it is older than 15 minutes" do
    assert {:reply, nil, %{stores: stores}} = get(Clock.now_us() - 15 * @minute_us - 1)
    assert stores == %{}
    assert {:reply, @learnt, %{stores: %{"store" => _kept}}} = get(Clock.now_us())
  end

  describe "a limit that is only the max_concurrency of its drain" do
    setup context do
      %{storage: String.pad_leading("#{context.line}", 32, "0"), wide: %{limit: 50, latency_us: 100_000, knee: false}}
    end

    test "does not replace a higher one at which moves took about as long", %{storage: storage, wide: wide} do
      Learnt.tell(storage, wide, 50)
      Learnt.tell(storage, %{wide | limit: 10, latency_us: 150_000}, 10)
      assert learnt(storage, 1) == wide
    end

    test "replaces a higher one if moves take longer now, and a lower one", %{storage: storage, wide: wide} do
      slower = %{wide | limit: 10, latency_us: 150_001}
      Learnt.tell(storage, wide, 50)
      Learnt.tell(storage, slower, 10)
      assert learnt(storage, 1) == slower
      higher = %{wide | limit: 20}
      Learnt.tell(storage, higher, 20)
      assert learnt(storage, 1) == higher
    end

    test "counts for no drain that may move more at a time", %{storage: storage, wide: wide} do
      Learnt.tell(storage, %{wide | limit: 10}, 10)
      assert learnt(storage, 10) == %{wide | limit: 10}
      assert learnt(storage, 11) == nil
    end

    test "is told apart from a knee, and from a search that has not ended", %{storage: storage, wide: wide} do
      for lower <- [%{wide | limit: 10, knee: true}, %{wide | limit: 9}] do
        Learnt.tell(storage, wide, 50)
        Learnt.tell(storage, lower, 10)
        assert learnt(storage, 50) == lower
      end
    end
  end

  @tag :capture_log
  test "a message that the process does not know is logged, and it goes on" do
    pid = Process.whereis(Learnt)

    ask = fn ->
      send(pid, :odd)
      GenServer.call(pid, {:get, "store"}, :infinity)
    end

    assert {nil, [{:warning, :unexpected_message, %{message: :odd}}]} = LogEvents.collect(ask, &(&1.pid == pid))
  end
end
