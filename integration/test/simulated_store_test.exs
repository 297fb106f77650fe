defmodule SimulatedStoreTest do
  @moduledoc "Speed, errors and hooks of the simulated store. What it stores is in the contract suite."

  use ExUnit.Case, async: true

  import ClusterCase, only: [await_task: 1, await_tasks: 1]

  setup do
    name = String.to_atom(Cluster.unique("store"))
    start_supervised!({SimulatedStore, name: name, seed: 1})
    {:ok, %{state: place}} = SimulatedStore.init_backend(name: name)
    {:ok, place: place}
  end

  test "no more requests than slots are served at a time", %{place: place} do
    SimulatedStore.configure(place, slots: 2, latency_ms: 1)
    put = fn n -> Task.async(fn -> SimulatedStore.put_object(place, "k", %{"n" => n}, []) end) end
    await_tasks(for n <- 1..20, do: put.(n))
    assert %{max_in_flight: 2, put: 20, in_flight: 0} = SimulatedStore.stats(place)
  end

  test "requests that wait for a slot are served in the order of arrival", %{place: place} do
    SimulatedStore.configure(place, slots: 1, latency_ms: 1)
    SimulatedStore.pause(place, "k")
    writes = for n <- 1..5, do: held_put(place, n)
    SimulatedStore.resume(place)
    etags = for {:ok, %{etag: etag}} <- await_tasks(writes), do: String.to_integer(etag)
    assert etags == Enum.sort(etags)
    assert %{body: %{"n" => 5}} = SimulatedStore.peek(place, "k")
  end

  test "without a slot limit all requests are served at once", %{place: place} do
    SimulatedStore.pause(place)
    gets = for _ <- 1..20, do: Task.async(fn -> SimulatedStore.get_object(place, "k", []) end)
    Cluster.wait_until(fn -> length(SimulatedStore.paused(place)) == 20 end)
    SimulatedStore.configure(place, latency_ms: 1)
    SimulatedStore.resume(place)
    await_tasks(gets)
    assert %{max_in_flight: 20, get: 20} = SimulatedStore.stats(place)
  end

  test "slots that are added at run time serve waiting requests", %{place: place} do
    SimulatedStore.configure(place, slots: 1, latency_ms: 60_000)
    for _ <- 1..3, do: Task.async(fn -> SimulatedStore.get_object(place, "k", []) end)
    Cluster.wait_until(fn -> SimulatedStore.stats(place).in_flight == 1 end)
    SimulatedStore.configure(place, slots: 3)
    Cluster.wait_until(fn -> SimulatedStore.stats(place).in_flight == 3 end)
  end

  test "the error rate is close to the requested one, and the same seed fails the same requests", %{place: place} do
    SimulatedStore.configure(place, error_rate: 0.3)
    outcomes = outcomes(place)
    assert Enum.count(outcomes, &(&1 == {:error, :simulated})) in 200..400
    assert SimulatedStore.stats(place).error == Enum.count(outcomes, &(&1 == {:error, :simulated}))

    again = String.to_atom(Cluster.unique("store"))
    start_supervised!({SimulatedStore, name: again, seed: 1, error_rate: 0.3}, id: again)
    assert outcomes({again, node()}) == outcomes
  end

  test "a failed write changes nothing, and a retry succeeds", %{place: place} do
    SimulatedStore.configure(place, error_rate: 1.0)
    assert {:error, :simulated} = SimulatedStore.put_object(place, "k", %{"n" => 1}, max_retries: 2)
    assert %{put: 3, error: 3} = SimulatedStore.stats(place)
    assert SimulatedStore.peek(place, "k") == nil
    SimulatedStore.configure(place, error_rate: 0.5)
    assert {:ok, _} = SimulatedStore.put_object(place, "k", %{"n" => 1}, max_retries: 1_000)
  end

  test "pause holds only matching requests; step and resume release them, oldest first", %{place: place} do
    {:ok, _} = SimulatedStore.put_object(place, "k", %{"n" => 0}, [])
    SimulatedStore.pause(place, {:put, "k"})
    SimulatedStore.pause(place, fn op, key -> op == :get and key == "other" end)
    writes = for n <- 1..2, do: held_put(place, n)
    assert {:ok, %{body: %{"n" => 0}}} = SimulatedStore.get_object(place, "k", [])

    assert :ok = SimulatedStore.step(place, "k")
    assert {:ok, _} = await_task(hd(writes))
    assert %{body: %{"n" => 1}} = SimulatedStore.peek(place, "k")
    assert {:error, :none} = SimulatedStore.step(place, "other")

    SimulatedStore.resume(place)
    await_tasks(tl(writes))
    assert %{body: %{"n" => 2}} = SimulatedStore.peek(place, "k")
    assert [] = SimulatedStore.paused(place)
  end

  test "fail_next fails one request, also one with retries", %{place: place} do
    SimulatedStore.fail_next(place, :put, "k", :slow_down)
    assert {:ok, _} = SimulatedStore.put_object(place, "other", %{}, [])
    assert {:error, :slow_down} = SimulatedStore.put_object(place, "k", %{}, max_retries: 5)
    assert {:ok, _} = SimulatedStore.put_object(place, "k", %{}, [])
  end

  test "a store process that has ended is an error, not an exit" do
    {:ok, %{state: nowhere}} = SimulatedStore.init_backend(name: :no_such_store)
    assert {:error, :unavailable} = SimulatedStore.get_object(nowhere, "k", [])
    assert {:error, :unavailable} = SimulatedStore.put_object(nowhere, "k", %{}, [])
  end

  test "a request that takes too long is an error, and may still be applied", %{place: place} do
    SimulatedStore.pause(place)
    assert {:error, :timeout} = SimulatedStore.put_object(place, "k", %{"n" => 1}, timeout: 1)
    SimulatedStore.resume(place)
    assert %{body: %{"n" => 1}} = SimulatedStore.peek(place, "k")
  end

  test "conflicts are counted; reset_stats starts over", %{place: place} do
    {:ok, {:claimed, _}} = SimulatedStore.try_claim(place, "k", %{})
    {:error, :already_claimed} = SimulatedStore.try_claim(place, "k", %{})
    {:error, :conflict} = SimulatedStore.put_object(place, "k", %{}, etag: "no")
    assert %{claim: 2, put: 1, conflict: 2, error: 0} = SimulatedStore.stats(place)
    SimulatedStore.reset_stats(place)
    assert %{claim: 0, put: 0, conflict: 0, max_in_flight: 0} = SimulatedStore.stats(place)
    assert ["k"] = SimulatedStore.keys(place)
  end

  defp outcomes(place), do: for(_ <- 1..1_000, do: SimulatedStore.get_object(place, "k", []))

  defp held_put(place, n) do
    before = length(SimulatedStore.paused(place))
    task = Task.async(fn -> SimulatedStore.put_object(place, "k", %{"n" => n}, []) end)
    Cluster.wait_until(fn -> length(SimulatedStore.paused(place)) == before + 1 end)
    task
  end
end
