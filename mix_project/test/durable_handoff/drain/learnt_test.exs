defmodule DurableHandoff.Drain.LearntTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.{Clock, Drain.Learnt, LogEvents}

  @learnt %{limit: 8, latency_us: 40_000, knee: true}
  @minute_us 60_000_000

  defp get(learnt_us), do: Learnt.handle_call({:get, "store"}, nil, %Learnt{stores: %{"store" => {@learnt, learnt_us}}})

  test "a measurement is not used if it is older than 15 minutes" do
    assert {:reply, nil, %{stores: stores}} = get(Clock.now_us() - 15 * @minute_us - 1)
    assert stores == %{}
    assert {:reply, @learnt, %{stores: %{"store" => _kept}}} = get(Clock.now_us())
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
