defmodule DurableHandoff.Host.RegistryTest do
  @moduledoc "What DurableServer's answers to a start mean for callers that wait."
  use ExUnit.Case, async: true

  alias DurableHandoff.Host.Registry

  @moduletag :capture_log

  test "registered and unregistered keys become events, and other messages none" do
    event = %{type: :unregistered, key: "k", pid: self()}

    assert Registry.events({:group, [event, %{event | type: :registered}], %{}}) == [
             {:unregistered, "k", self()},
             {:registered, "k", self()}
           ]

    assert Registry.events({:group, [%{event | type: :joined}, %{type: :registered}], %{}}) == []
    assert Registry.events(:unknown) == []
    assert Registry.subscribe(:no_such_supervisor, :all) != :ok
  end

  test "an owner, new or existing: send it the request" do
    assert Registry.started({:ok, {self(), %{}}}) == {:ok, self()}
    assert Registry.started({:error, {:already_started, {self(), nil}}}) == {:ok, self()}
  end

  test "a process that holds the lock and is not registered yet: send it the request if its node is connected" do
    for tag <- [:unreachable, :already_started] do
      assert Registry.started({:error, {tag, self()}}) == {:ok, self()}
      assert Registry.started({:error, {tag, elsewhere()}}) == {:again, {tag, elsewhere()}}
    end
  end

  test "answers that ask to try later do not end a call" do
    limits = ~w(node_shutting_down no_available_nodes all_placement_attempts_failed max_children_total
                max_children_module max_cpu max_memory max_disk)a

    starting = [already_started: :deleting, already_started: :noproc, unreachable: :noproc, restart_claimed: "a@b"]
    network = [locked: self(), erpc: :timeout, erpc: :noconnection, circuit_open: :network_partition]
    busy = [:timeout, :not_ready, :singleflight_overloaded, :conflict, :max_children]

    for reason <- busy ++ starting ++ network ++ Enum.map(limits, &{:capacity_limit, &1}),
        do: assert(Registry.started({:error, reason}) == {:again, reason})
  end

  test "a failing store does not end a call" do
    for reason <- [
          {:storage_unavailable, :timeout},
          :no_quorum,
          :quorum_timeout,
          :unavailable,
          :slow_down,
          {:mirror_failed, :timeout},
          {:network, %{cause: "closed"}},
          {:denied, %{cause: "no role"}}
        ],
        do: assert(Registry.started({:error, reason}) == {:again, reason})
  end

  test "permanent errors end the call" do
    stack = [{Room, :init, 1, []}]
    assert Registry.started(:ignore) == {:error, :ignore}

    for reason <- [
          :cordoned,
          :permanently_crashed,
          :not_found,
          {:bad_init_return, {:stop, :no}},
          {%RuntimeError{message: "init"}, stack},
          {:undef, stack},
          {:unreadable, %{key: "k"}}
        ],
        do: assert(Registry.started({:error, reason}) == {:error, reason})
  end

  test "an answer of a later version is not a success, and does not end the call" do
    assert Registry.started({:error, {:of_a_later_version, 1}}) == {:again, {:of_a_later_version, 1}}
    assert Registry.started({:ok, :of_a_later_version}) == {:again, {:ok, :of_a_later_version}}
    assert Registry.started(:of_a_later_version) == {:again, :of_a_later_version}
  end

  # A process of a node that this one is not connected to.
  defp elsewhere, do: :erlang.binary_to_term(<<131, 88, 100, 0, 3, ?x, ?@, ?y, 1::32, 0::32, 1::32>>)
end
