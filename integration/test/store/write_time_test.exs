defmodule Store.WriteTimeTest do
  @moduledoc "A store measures how long its writes take, for the estimate of a drain."

  use ExUnit.Case, async: true

  alias DurableHandoff.Host
  alias DurableHandoff.Store, as: Backend

  setup do
    {:ok, %{state: store}} = Backend.init_backend(Store.Places.directory())
    {:ok, store: store}
  end

  defp known(store), do: Host.write_us({%{adapter: Backend, state: store}, "x/"})

  test "the write time is known after a claim or an update", %{store: store} do
    assert known(store) == nil
    {:ok, {:claimed, etag}} = Backend.try_claim(store, "k", %{"n" => 1})
    assert claim_us = known(store)
    assert claim_us > 0
    {:ok, _} = Backend.put_object(store, "k", %{"n" => 2}, etag: etag)
    assert known(store) > 0
  end

  test "a refused write and a read do not change the write time", %{store: store} do
    {:error, :conflict} = Backend.put_object(store, "k", %{"n" => 1}, etag: "none")
    {:error, :not_found} = Backend.get_object(store, "k")
    assert known(store) == nil
  end

  test "nil for a backend that does not measure it, and for a supervisor without a store", %{store: store} do
    assert Host.write_us({%{adapter: SimulatedStore, state: store}, "x/"}) == nil
    assert Host.write_us(nil) == nil
  end
end
