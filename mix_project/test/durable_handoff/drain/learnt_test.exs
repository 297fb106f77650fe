defmodule DurableHandoff.Drain.LearntTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.{Clock, Drain.Learnt}

  @learnt %{limit: 8, latency_us: 40_000, knee: true}
  @minute_us 60_000_000

  defp get(learnt_us), do: Learnt.handle_call({:get, "store"}, nil, %Learnt{stores: %{"store" => {@learnt, learnt_us}}})

  test "a measurement is not used if it is older than 15 minutes" do
    assert {:reply, nil, %{stores: stores}} = get(Clock.now_us() - 15 * @minute_us - 1)
    assert stores == %{}
    assert {:reply, @learnt, %{stores: %{"store" => _kept}}} = get(Clock.now_us())
  end
end
