defmodule DurableServer.SingleFlightTest do
  use ExUnit.Case, async: true

  import ClusterCase, only: [await_task: 1, await_tasks: 1]

  alias DurableServer.SingleFlight

  setup do
    registry = String.to_atom(Cluster.unique("flights"))
    start_supervised!({Registry, keys: :unique, name: registry})
    start_supervised!({Registry, keys: :duplicate, name: SingleFlight.waiting(registry)})
    {:ok, registry: registry}
  end

  test "callers of one key share one run; other keys run beside it", %{registry: registry} do
    leader = fly(registry, :k)
    followers = for _ <- 1..3, do: Task.async(fn -> SingleFlight.run(registry, :k, fn -> :second end) end)
    await_waiting(registry, :k, 3)
    assert SingleFlight.run(registry, :other, fn -> :other end) == :other

    send(leader.pid, {:land, :first})
    assert await_tasks([leader | followers]) == [:first, :first, :first, :first]
    assert SingleFlight.run(registry, :k, fn -> :later end) == :later
  end

  test "the leader is killed: one of the waiting callers becomes the leader", %{registry: registry} do
    Process.flag(:trap_exit, true)
    leader = fly(registry, :k)
    followers = for _ <- 1..3, do: Task.async(fn -> SingleFlight.run(registry, :k, fn -> :next end) end)
    await_waiting(registry, :k, 3)
    Process.exit(leader.pid, :kill)
    assert await_tasks(followers) == [:next, :next, :next]
  end

  test "the leader raises: only its own caller gets the error", %{registry: registry} do
    leader =
      Task.async(fn -> catch_error(SingleFlight.run(registry, :k, fn -> receive(do: (:raise -> raise("boom"))) end)) end)

    Cluster.wait_until(fn -> Registry.lookup(registry, :k) != [] end)
    follower = Task.async(fn -> SingleFlight.run(registry, :k, fn -> :next end) end)
    await_waiting(registry, :k, 1)
    send(leader.pid, :raise)
    assert %RuntimeError{message: "boom"} = await_task(leader)
    assert await_task(follower) == :next
  end

  defp fly(registry, key) do
    task = Task.async(fn -> SingleFlight.run(registry, key, fn -> receive(do: ({:land, result} -> result)) end) end)
    Cluster.wait_until(fn -> Registry.lookup(registry, key) != [] end)
    task
  end

  defp await_waiting(registry, key, count),
    do: Cluster.wait_until(fn -> length(Registry.lookup(SingleFlight.waiting(registry), key)) == count end)
end
