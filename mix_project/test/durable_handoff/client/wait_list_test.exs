defmodule DurableHandoff.Client.WaitListTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Client.WaitList

  test "a server is started with the time of the caller that waits longest" do
    waiters =
      for {until_us, start} <- [{5, {Counter, %{}}}, {7, {Counter, %{}}}, {9, nil}], reduce: WaitList.new() do
        waiters ->
          waiter = %{from: {self(), make_ref()}, monitor: make_ref(), dead: [], start: start, until_us: until_us}
          WaitList.add(waiters, "k", spawn(fn -> :ok end), waiter)
      end

    assert %{until_us: 7} = WaitList.starter(waiters, "k", nil)
  end
end
