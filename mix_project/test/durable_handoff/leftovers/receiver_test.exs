defmodule DurableHandoff.Leftovers.ReceiverTest do
  @moduledoc "The receiver's rules, on a node where the host does not even run: what the registry and the store say is told to it."
  use ExUnit.Case, async: true

  import ExUnit.CaptureLog

  @moduletag :capture_log

  alias DurableHandoff.{Leftovers, Options}
  alias DurableHandoff.Leftovers.{Receiver, Share}

  @source :source@somewhere

  setup do
    options = Options.new!(max_concurrency: 2, concurrency: :fixed, max_attempts: 2)
    {:ok, receiver: Receiver.new(:"no_such_#{System.unique_integer([:positive])}", options, false)}
  end

  defp take(receiver, keys, later \\ []) do
    servers = for key <- keys, do: {key, Some.Module}
    {:ok, share} = Share.new(Share.message(make_ref(), @source, servers, [self() | later]), self(), 0)
    {:ok, receiver} = Receiver.take(receiver, share)
    {capture(fn -> Receiver.begin(receiver, share.id) end), share.id}
  end

  # It warns that there is no registry to listen to.
  defp capture(fun) do
    {result, _log} = with_log(fun)
    result
  end

  defp entry(receiver, id, key), do: receiver.shares[id].entries[key]

  # A try whose process is known, but which has not answered.
  defp trying(receiver) do
    receiver = Receiver.pump(receiver)
    {receiver, for({pid, {_id, key, _permit, _monitor}} <- receiver.tries, into: %{}, do: {key, pid})}
  end

  test "no more are tried at a time than the pace allows, the first ones first", %{receiver: receiver} do
    {receiver, id} = take(receiver, ["a", "b", "c"])
    {receiver, pids} = trying(receiver)
    assert Enum.sort(Map.keys(pids)) == ["a", "b"]
    assert entry(receiver, id, "c").phase == :queued
    {_receiver, pids} = receiver |> Receiver.tried(pids["a"], :started, 1) |> trying()
    assert Enum.sort(Map.keys(pids)) == ["b", "c"]
  end

  test "a server that fails to start is tried so often and no more", %{receiver: receiver} do
    {receiver, id} = take(receiver, ["a", "b"])
    {receiver, pids} = trying(receiver)
    receiver = Receiver.tried(receiver, pids["a"], {:failed, :server}, 1)
    assert entry(receiver, id, "a").phase == :resting
    {receiver, pids} = receiver |> Receiver.enqueue(id, "a", :resting) |> trying()
    receiver = Receiver.tried(receiver, pids["a"], {:failed, :server}, 1)
    assert entry(receiver, id, "a") == nil
    assert receiver.shares[id].dropped == %{failed: 1}
  end

  test "a store that fails costs no attempt", %{receiver: receiver} do
    {receiver, id} = take(receiver, ["a"])

    receiver =
      Enum.reduce(1..10, receiver, fn _again, receiver ->
        {receiver, pids} = trying(receiver)
        receiver |> Receiver.tried(pids["a"], {:failed, :store}, 1) |> Receiver.enqueue(id, "a", :resting)
      end)

    assert %{tries: 10, faults: 0} = entry(receiver, id, "a")
  end

  test "what the registry says came up elsewhere is left alone; at the source it means nothing", %{receiver: receiver} do
    {receiver, id} = take(receiver, ["a", "b"])
    receiver = receiver |> Receiver.changed({:up, "a", @source}) |> Receiver.changed({:up, "b", :other@somewhere})
    assert entry(receiver, id, "a") != nil
    assert entry(receiver, id, "b") == nil
    assert receiver.shares[id].running == 1
  end

  test "a full node passes a server on; the last one in line keeps it", %{receiver: receiver} do
    {receiver, id} = take(receiver, ["a", "z"], [self()])
    {receiver, pids} = trying(receiver)
    receiver = Receiver.tried(receiver, pids["a"], {:refused, :full}, 1)
    assert_received {Leftovers, {:pass, ^id, ["a"]}}
    assert entry(receiver, id, "a") == nil

    receiver = Receiver.out_of_line(receiver, self(), :gone)
    {receiver, pids} = {receiver, Map.new(receiver.tries, fn {pid, {_id, key, _permit, _monitor}} -> {key, pid} end)}
    receiver = Receiver.tried(receiver, pids["z"], {:refused, :full}, 1)
    assert entry(receiver, id, "z").phase == :resting
  end

  test "a node that is draining stands down: all later ones are told, and it takes nothing more", %{receiver: receiver} do
    {receiver, _id} = take(receiver, ["a"], [self()])
    {receiver, pids} = trying(receiver)
    me = self()
    receiver = Receiver.tried(receiver, pids["a"], {:refused, :draining}, 1)
    assert_received {Leftovers, {:stood_down, ^me}}
    assert Receiver.idle?(receiver) and Receiver.draining?(receiver)
    {:ok, share} = Share.new(Share.message(make_ref(), @source, [], [self()]), self(), 0)
    assert {:error, :draining} = Receiver.take(receiver, share)
  end

  test "one before it stood down before the share came: it is this one's turn at once", %{receiver: receiver} do
    owner = spawn(fn -> Process.sleep(:infinity) end)
    receiver = Receiver.out_of_line(receiver, owner, :stood_down)
    message = Share.message(make_ref(), @source, [{"a", Some.Module}], [owner, self()])
    {:ok, share} = Share.new(message, self(), 0)
    {:ok, receiver} = Receiver.take(receiver, share)
    receiver = capture(fn -> Receiver.begin(receiver, share.id) end)
    assert entry(receiver, share.id, "a").phase == :queued
    Process.exit(owner, :kill)
  end

  test "a share that ends because another one is taken over stays ended", %{receiver: receiver} do
    owner = spawn(fn -> Process.sleep(:infinity) end)
    [first, second] = Enum.sort([make_ref(), make_ref()])
    {:ok, standby} = Share.new(Share.message(first, @source, [{"a", Some.Module}], [owner, self()]), self(), 0)
    {:ok, receiver} = Receiver.take(receiver, standby)
    {:ok, share} = Share.new(Share.message(second, @source, [{"a", Some.Module}], [self()]), self(), 0)
    {:ok, receiver} = Receiver.take(receiver, share)
    receiver = capture(fn -> Receiver.begin(receiver, second) end)

    receiver = capture(fn -> Receiver.out_of_line(receiver, owner, :gone) end)
    assert Map.keys(receiver.shares) == [first]
    Process.exit(owner, :kill)
  end

  test "more than it may hold is refused", %{receiver: receiver} do
    servers = for n <- 1..Share.most_servers(), do: {n, Some.Module}
    owner = spawn(fn -> Process.sleep(:infinity) end)

    results =
      Enum.scan(1..4, {nil, receiver}, fn _share, {_result, receiver} ->
        {:ok, share} = Share.new(Share.message(make_ref(), @source, servers, [owner, self()]), self(), 0)

        case Receiver.take(receiver, share) do
          {:ok, receiver} -> {:ok, receiver}
          {:error, reason} -> {reason, receiver}
        end
      end)

    assert Enum.map(results, &elem(&1, 0)) == [:ok, :ok, :ok, :full]
    Process.exit(owner, :kill)
  end

  test "what has not been started after five minutes is dropped, with a warning", %{receiver: receiver} do
    {receiver, id} = take(receiver, ["a"])
    assert capture_log(fn -> assert receiver |> Receiver.tick(300_000) |> Receiver.idle?() end) =~ "expired 1"
    assert entry(receiver, id, "a") != nil
  end

  test "an answer that comes after its share is gone gives its permit back, and nothing else", %{receiver: receiver} do
    {receiver, _id} = take(receiver, ["a"])
    {receiver, pids} = trying(receiver)
    receiver = capture(fn -> Receiver.tick(receiver, 300_000) end)
    receiver = Receiver.tried(receiver, pids["a"], :started, 1)
    assert receiver.tries == %{}
    assert Receiver.idle?(receiver)
  end
end
