defmodule Store.UpdateTest do
  @moduledoc "`DurableHandoff.Store.update_object/4` and the function that it is given."

  use ExUnit.Case, async: true

  alias DurableHandoff.Store

  setup do
    {:ok, %{state: store}} = Store.init_backend(url: "memory:")
    {:ok, _object} = Store.put_object(store, "k", %{"n" => 1})
    {:ok, store: store}
  end

  test "a function that does not return {:ok, data} is an error, and nothing is written", %{store: store} do
    assert_raise ArgumentError, ~r/returned %{"n" => 2}, expected {:ok, data} or {:error, reason}/, fn ->
      Store.update_object(store, "k", fn _object -> %{"n" => 2} end)
    end

    assert {:ok, %{body: %{"n" => 1}}} = Store.get_object(store, "k")
  end

  test "a function that returns {:error, reason}: update_object returns it", %{store: store} do
    assert Store.update_object(store, "k", fn _object -> {:error, :enough} end) == {:error, :enough}

    assert {:ok, %{body: %{"n" => 2}}} =
             Store.update_object(store, "k", fn %{body: body} -> {:ok, %{body | "n" => 2}} end)
  end
end
