defmodule DurableHandoff.Leftovers.StateTest do
  @moduledoc "The receiver's rules, on a node without DurableServer. The test acts as registry and store."
  use ExUnit.Case, async: true

  import DurableHandoff.LogEvents

  @moduletag :capture_log

  alias DurableHandoff.{Leftovers, Options}
  alias DurableHandoff.Leftovers.{Adoption, Message, State}

  @source :source@somewhere

  setup do
    options = Options.new!(max_concurrency: 2, concurrency: :fixed, max_attempts: 2)
    {:ok, state: State.new(:"no_such_#{System.unique_integer([:positive])}", options, false)}
  end

  defp take(state, keys, later \\ []) do
    adoption = adoption(keys, [self() | later])
    {:ok, state} = State.accept(state, adoption)
    {State.begin(state, adoption.id), adoption.id}
  end

  # An offer of these servers to the receivers in `line`.
  defp adoption(keys, line, id \\ make_ref()) do
    servers = for key <- keys, do: {key, Some.Module}
    {:ok, adoption} = Adoption.new(Message.offer(id, @source, servers, line, length(line)), self(), 0)
    adoption
  end

  # Another receiver, until the test ends.
  defp receiver, do: start_supervised!({Agent, fn -> nil end}, id: make_ref())

  defp entry(state, id, key), do: state.adoptions[id].entries[key]

  # An attempt whose process is known but has not answered.
  defp trying(state) do
    state = State.pump(state)
    {state, started(state)}
  end

  defp started(state),
    do: for({pid, {{_id, key}, _permit, _monitor}} <- state.starts.running, into: %{}, do: {key, pid})

  test "as many starts at a time as the pace allows, in order", %{state: state} do
    {state, id} = take(state, ["a", "b", "c"])
    {state, pids} = trying(state)
    assert Enum.sort(Map.keys(pids)) == ["a", "b"]
    assert entry(state, id, "c").phase == :queued
    {_receiver, pids} = state |> State.tried(pids["a"], :started, 1) |> trying()
    assert Enum.sort(Map.keys(pids)) == ["b", "c"]
  end

  test "without events of the registry it polls, and says so once", %{state: state} do
    {state, log} = collect(fn -> state |> take(["a"]) |> elem(0) |> take(["b"]) |> elem(0) end)
    assert [{:warning, :leftovers_poll_only, %{reason: _no_supervisor}}] = log
    assert Enum.sort(Map.keys(State.held(state))) == ["a", "b"]
  end

  test "a server that fails to start is tried a limited number of times", %{state: state} do
    {state, id} = take(state, ["a", "b"])
    {state, pids} = trying(state)
    state = State.tried(state, pids["a"], {:failed, :server}, 1)
    assert entry(state, id, "a").phase == :resting
    {state, pids} = state |> State.enqueue(id, "a", :resting) |> trying()
    state = State.tried(state, pids["a"], {:failed, :server}, 1)
    assert entry(state, id, "a") == nil
    assert state.adoptions[id].dropped == %{failed: 1}
  end

  test "a store failure does not count as an attempt", %{state: state} do
    {state, id} = take(state, ["a"])

    state =
      Enum.reduce(1..10, state, fn _again, state ->
        {state, pids} = trying(state)
        state |> State.tried(pids["a"], {:failed, :store}, 1) |> State.enqueue(id, "a", :resting)
      end)

    assert %{tries: 10, faults: 0} = entry(state, id, "a")
  end

  test "a server registered on another node is tried, to see whether it has started; one at the source is ignored",
       %{state: state} do
    {state, id} = take(state, ["a", "b"])
    {state, pids} = trying(state)
    state = Enum.reduce(["a", "b"], state, &State.tried(&2, pids[&1], {:wait, :starting}, 1))

    state =
      state
      |> State.registry_event(:registered, "a", @source)
      |> State.registry_event(:registered, "b", :other@somewhere)

    assert entry(state, id, "a").phase == :resting
    assert entry(state, id, "b").phase == :queued
    {state, pids} = trying(state)
    state = State.tried(state, pids["b"], {:running, :other@somewhere}, 1)
    assert entry(state, id, "b") == nil
    assert state.adoptions[id].running == 1
  end

  test "a full node forwards a server; the last receiver keeps it", %{state: state} do
    {state, id} = take(state, ["a", "z"], [self()])
    {state, pids} = trying(state)
    state = State.tried(state, pids["a"], {:refused, :full}, 1)
    assert_received {Leftovers, {:pass, ^id, ["a"]}}
    assert entry(state, id, "a").phase == {:forwarded, self()}

    state = State.drop_receiver(state, self(), :gone)
    state = State.tried(state, started(state)["z"], {:refused, :full}, 1)
    assert entry(state, id, "z").phase == :resting
  end

  test "a receiver that got a server forwarded is not told to forget the offer", %{state: state} do
    {state, id} = take(state, ["a", "b"], [self()])
    {state, pids} = trying(state)
    state = State.tried(state, pids["a"], {:refused, :full}, 1)
    state = State.tried(state, pids["b"], :started, 1)
    refute State.idle?(state)
    assert state |> State.registry_event(:registered, "a", :other@somewhere) |> State.idle?()
    refute_received {Leftovers, {:settled, ^id}}
  end

  test "the source offers a server again: the later receivers forget the earlier offer, and it counts once",
       %{state: state} do
    {state, log} =
      collect(fn ->
        {state, earlier} = take(state, ["a", "b"], [self()])
        {state, pids} = trying(state)
        state = State.tried(state, pids["b"], {:left_alone, :permanent}, 1)
        {state, again} = take(state, ["a"], [self()])
        assert_received {Leftovers, {:settled, ^earlier}}
        {state, pids} = trying(state)
        state = State.tried(state, pids["a"], :started, 1)
        assert_received {Leftovers, {:settled, ^again}}
        state
      end)

    assert State.idle?(state)
    counts = for {_level, :leftovers_ended, fields} <- log, do: Map.take(fields, [:total, :started, :forwarded])
    assert counts == [%{total: 1, started: 0, forwarded: 0}, %{total: 1, started: 1, forwarded: 0}]
  end

  test "a server that was forwarded is offered again: the later receivers keep the earlier offer", %{state: state} do
    {state, earlier} = take(state, ["a"], [self()])
    {state, pids} = trying(state)
    state = State.tried(state, pids["a"], {:refused, :full}, 1)
    {state, again} = take(state, ["a"], [self()])
    assert Map.keys(state.adoptions) == [again]
    refute_received {Leftovers, {:settled, ^earlier}}
  end

  for how <- [:gone, :stood_down] do
    test "a receiver that got a server forwarded is #{how}: this one tries again, and forwards it to the next",
         %{state: state} do
      next = receiver()
      {state, id} = take(state, ["a"], [next, self()])
      {state, pids} = trying(state)
      state = State.tried(state, pids["a"], {:refused, :full}, 1)
      assert entry(state, id, "a").phase == {:forwarded, next}
      {state, pids} = state |> State.drop_receiver(next, unquote(how)) |> trying()
      state = State.tried(state, pids["a"], {:refused, :full}, 1)
      assert_received {Leftovers, {:pass, ^id, ["a"]}}

      # No other is left.
      {state, pids} = state |> State.drop_receiver(self(), unquote(how)) |> trying()
      state = State.tried(state, pids["a"], {:refused, :full}, 1)
      assert entry(state, id, "a").phase == :resting
    end
  end

  test "a server that was forwarded counts as such, not as dropped, when the time is over", %{state: state} do
    {state, _id} = take(state, ["a"], [self()])
    {state, pids} = trying(state)
    state = State.tried(state, pids["a"], {:refused, :full}, 1)
    {state, log} = collect(fn -> State.tick(state, 300_000_000) end)
    assert State.idle?(state)
    assert [{:info, :leftovers_ended, %{total: 1, forwarded: 1, dropped: none}}] = log
    assert none == %{}
  end

  test "the receivers of a source share its hundred starts, those whose servers this one has no part in too" do
    state = State.new(:"no_such_#{System.unique_integer([:positive])}", Options.new!(max_concurrency: 50), false)
    offer = Message.offer(make_ref(), @source, for(key <- 1..60, do: {key, Some.Module}), [self()], 4)
    # An earlier release does not say how many receivers there are.
    for {offer, starts} <- [{offer, 25}, {Map.delete(offer, :receivers), 50}] do
      {:ok, adoption} = Adoption.new(offer, self(), 0)
      {:ok, state} = State.accept(state, adoption)
      {_state, pids} = state |> State.begin(adoption.id) |> trying()
      assert map_size(pids) == starts
    end
  end

  test "a receiver does not hurry when the source has stopped all servers", %{state: state} do
    {state, _id} = take(state, ["a"])
    assert State.tick(state, 0).rush_until_us == nil
  end

  test "a draining node stands down: it tells all later receivers, and accepts no more", %{state: state} do
    {state, _id} = take(state, ["a"], [self()])
    {state, pids} = trying(state)
    me = self()
    state = State.tried(state, pids["a"], {:refused, :draining}, 1)
    assert_received {Leftovers, {:stood_down, ^me}}
    assert State.idle?(state) and state.draining?
    assert {:error, :draining} = State.accept(state, adoption([], [self()]))
  end

  test "a draining node stands down: earlier receivers, which could forward to it, learn of it", %{state: state} do
    {test, me} = {self(), self()}
    earlier = start_supervised!({Task, fn -> receive(do: (message -> send(test, {:earlier, message}))) end})
    {:ok, state} = State.accept(state, adoption(["a"], [earlier, me]))
    State.stand_down(state)
    assert_receive {:earlier, {Leftovers, {:stood_down, ^me}}}, 60_000
  end

  test "a receiver that got a server forwarded stands down: the next one gets it, although the first one runs",
       %{state: state} do
    %{id: id} = adoption = adoption(["a", "b"], [receiver(), self(), self()])
    {:ok, state} = State.accept(state, adoption)
    state = state |> State.begin(id) |> State.forwarded(id, ["a"])
    assert %{"a" => :queued, "b" => :pending} = State.held(state)
    assert state |> State.stand_down() |> State.idle?()
    assert_received {Leftovers, {:pass, ^id, ["a"]}}
  end

  test "an earlier receiver stood down before the offer arrived: it is this one's turn at once", %{state: state} do
    owner = receiver()
    adoption = adoption(["a"], [owner, self()])
    {:ok, state} = state |> State.drop_receiver(owner, :stood_down) |> State.accept(adoption)
    assert state |> State.begin(adoption.id) |> entry(adoption.id, "a") |> Map.fetch!(:phase) == :queued
  end

  test "an earlier receiver has forwarded a server before the offer arrived: it is started here, the others are not",
       %{state: state} do
    %{id: id} = adoption = adoption(["a", "b"], [receiver(), self()])
    {:ok, state} = state |> State.forwarded(id, ["a"]) |> State.accept(adoption)
    state = State.begin(state, id)
    assert Map.keys(state.adoptions[id].entries) == ["a"]
  end

  test "an earlier receiver has started all servers before the offer arrived: none is held here", %{state: state} do
    %{id: id} = adoption = adoption(["a"], [receiver(), self()])
    {:ok, state} = state |> State.settled(id) |> State.accept(adoption)
    assert state |> State.begin(id) |> State.idle?()
  end

  test "an earlier receiver that stood down long before the offer adopts it: it is not this one's turn", %{state: state} do
    owner = receiver()
    adoption = adoption(["a"], [owner, self()])
    state = State.drop_receiver(state, owner, :stood_down)
    state = %{state | stood_down: Map.new(state.stood_down, fn {pid, at_us} -> {pid, at_us - 10_000_000} end)}
    {:ok, state} = State.accept(state, adoption)
    state = State.begin(state, adoption.id)
    assert State.held(state) == %{"a" => :pending}
    # It stands down now.
    assert state |> State.drop_receiver(owner, :stood_down) |> entry(adoption.id, "a") |> Map.fetch!(:phase) == :queued
  end

  test "an adoption that ended because of a takeover stays ended", %{state: state} do
    owner = receiver()
    [first, second] = Enum.sort([make_ref(), make_ref()])
    {:ok, state} = State.accept(state, adoption(["a"], [owner, self()], first))
    {:ok, state} = State.accept(state, adoption(["a"], [self()], second))
    state = state |> State.begin(second) |> State.drop_receiver(owner, :gone)
    assert Map.keys(state.adoptions) == [first]
  end

  test "an offer above its capacity is refused", %{state: state} do
    line = [receiver(), self()]
    share = fn -> adoption(1..Adoption.most_servers(), line) end
    {:ok, state} = State.accept(state, share.())
    {:ok, state} = State.accept(state, share.())
    {:ok, state} = State.accept(state, share.())
    assert {:error, :full} = State.accept(state, share.())
  end

  test "servers that have not started after five minutes are dropped, with a warning", %{state: state} do
    {state, id} = take(state, ["a"])
    {state_after, log} = collect(fn -> State.tick(state, 300_000_000) end)
    assert State.idle?(state_after)
    assert [{:warning, :leftovers_ended, %{source: @source, total: 1, dropped: %{expired: 1}}}] = log
    assert entry(state, id, "a") != nil
  end

  test "a result that arrives after the end of its adoption only returns its permit", %{state: state} do
    {state, _id} = take(state, ["a"])
    {state, pids} = trying(state)
    state = State.tick(state, 300_000_000)
    state = State.tried(state, pids["a"], :started, 1)
    assert state.starts.running == %{}
    assert State.idle?(state)
  end
end
