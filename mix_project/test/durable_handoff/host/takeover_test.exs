defmodule DurableHandoff.Host.TakeoverTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Host.Takeover

  @moduletag :capture_log
  @source :source@somewhere

  for {answer, outcome} <- [
        {{:error, {:capacity_limit, :max_children_total}}, {:refused, :full}},
        {{:error, {:capacity_limit, :max_memory}}, {:refused, :full}},
        {{:error, :max_children}, {:refused, :full}},
        {{:error, {:capacity_limit, :node_shutting_down}}, {:refused, :draining}},
        # The start may succeed later.
        {{:error, :timeout}, {:wait, :starting}},
        {{:error, {:unreachable, :noproc}}, {:wait, :starting}},
        {{:error, {:already_started, :noproc}}, {:wait, :starting}},
        {{:error, :singleflight_overloaded}, {:wait, :starting}},
        {{:error, :not_ready}, {:wait, :starting}},
        {{:error, :conflict}, {:wait, :starting}},
        # The server was ended deliberately.
        {{:error, {:already_started, :deleting}}, {:left_alone, :deleting}},
        {{:error, :cordoned}, {:left_alone, :cordoned}},
        {{:error, :permanently_crashed}, {:left_alone, :permanently_crashed}},
        # Before 0.1.7 DurableServer answers a store failure like this, later versions like the next ones.
        {{:error, :not_found}, {:failed, :store}},
        {{:error, {:storage_unavailable, :no_quorum}}, {:failed, :store}},
        {{:error, :unavailable}, {:failed, :store}},
        {{:error, :no_quorum}, {:failed, :store}},
        {{:error, {:mirror_failed, :closed}}, {:failed, :store}},
        {{:error, {:erpc, :notsup}}, {:failed, :unknown}},
        {:ignore, {:failed, :server}},
        {{:error, {%RuntimeError{message: "init"}, []}}, {:failed, :server}},
        {{:error, {:bad_init_return, 1}}, {:failed, :server}},
        {{:error, :of_a_later_version}, {:failed, :unknown}},
        {:of_a_later_version, {:failed, :unknown}}
      ] do
    test "the answer #{inspect(answer)}" do
      assert Takeover.meaning({:returned, unquote(Macro.escape(answer))}, @source) == unquote(outcome)
    end
  end

  test "the node of the process is the one that started the server" do
    assert Takeover.meaning({:returned, {:ok, {self(), %{}}}}, @source) == :started
    assert Takeover.meaning({:returned, {:error, {:already_started, {self(), nil}}}}, @source) == :started
    # A process that only holds the lock may still fail to start.
    assert Takeover.meaning({:returned, {:error, {:unreachable, self()}}}, @source) == {:wait, :starting}
  end

  test "DurableServer raises: the result is still an outcome" do
    assert Takeover.meaning({:raised, :exit, {:noproc, :call}}, @source) == {:failed, :unknown}
    # What DurableServer throws while it boots.
    assert Takeover.meaning({:raised, :throw, {:error, :not_ready}}, @source) == {:wait, :starting}
    assert Takeover.start(:no_such_supervisor, "k", Some.Module, @source, 100) == {:failed, :store}
  end
end
