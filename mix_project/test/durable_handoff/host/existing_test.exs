defmodule DurableHandoff.Host.ExistingTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Host.{Departures, Existing}

  @source :source@somewhere

  for {answer, outcome} <- [
        {{:error, {:capacity_limit, :total}}, {:refused, :full}},
        {{:error, :shutting_down}, {:refused, :draining}},
        {{:error, :locked}, {:wait, :starting}},
        {{:error, :conflict}, {:wait, :starting}},
        {{:error, :timeout}, {:wait, :starting}},
        {{:error, :reserved}, {:wait, :reserved}},
        # A store that failed looks like this to the host.
        {{:error, :not_found}, {:failed, :store}},
        {{:error, :unavailable}, {:failed, :store}},
        {:ignore, {:failed, :server}},
        {{:error, {%RuntimeError{message: "init"}, []}}, {:failed, :server}},
        {{:error, :of_a_later_version}, {:failed, :unknown}},
        {:of_a_later_version, {:failed, :unknown}}
      ] do
    test "the answer #{inspect(answer)}" do
      assert Existing.meaning({:returned, unquote(Macro.escape(answer))}, @source) == unquote(outcome)
    end
  end

  test "whose process it is decides who started it" do
    assert Existing.meaning({:returned, {:ok, {self(), %{}}}}, @source) == :started
    assert Existing.meaning({:returned, {:error, {:already_started, {self(), nil}}}}, @source) == :started
  end

  test "a host that raises is no reason to raise" do
    assert Existing.meaning({:raised, :exit, {:noproc, :call}}, @source) == {:failed, :unknown}
    assert Existing.start(:no_such_supervisor, "k", Some.Module, @source, 100) == {:failed, :store}
    assert Departures.subscribe(:no_such_supervisor) != :ok
  end

  test "words of the registry, and what is none" do
    event = %{type: :unregistered, key: "k", pid: self()}

    assert Departures.read({:group, [event, %{event | type: :registered}], %{}}) == [
             {:down, "k", node()},
             {:up, "k", node()}
           ]

    assert Departures.read({:group, [%{event | type: :joined}, %{type: :registered}], %{}}) == []
    assert Departures.read(:unknown) == []
  end
end
