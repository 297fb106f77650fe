defmodule DurableServer.StoredStateTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Codec.Decoder
  alias DurableServer.{Meta, StoredState}

  doctest DurableServer.StoredState

  @vectors Path.expand("../../../../test/vectors/envelope.json", __DIR__)
  @external_resource @vectors

  setup_all do
    {:ok, recorded: @vectors |> File.read!() |> Decoder.decode!()}
  end

  test "objects written by the real package are read with the same result", %{recorded: %{"objects" => objects}} do
    assert objects != []

    for %{"name" => name, "expect" => expect} = recorded <- objects do
      stored = read(recorded)
      meta = stored.meta
      assert {name, stored.vsn} == {name, expect["vsn"]}
      assert {name, Atom.to_string(meta.status)} == {name, expect["status"]}
      assert {name, meta.node_str} == {name, expect["node"]}
      assert {name, meta.permanent} == {name, expect["permanent"]}
      assert {name, inspect(meta.module)} == {name, expect["module"]}
      assert {name, meta.restart_attempt_node} == {name, expect["restart_attempt_node"]}
      assert {name, meta.restart_attempt_ttl} == {name, expect["restart_attempt_ttl"]}
      assert {name, length(meta.crash_history)} == {name, length(expect["crash_history"])}
      assert {name, length(meta.sticky_placement || [])} == {name, expect["sticky_levels"]}

      assert {name, stored.state} ==
               {name, recorded["state_etf_base64"] |> Base.decode64!() |> :erlang.binary_to_term()}
    end
  end

  test "objects written here have the same fields", %{recorded: %{"objects" => [recorded | _]}} do
    config = %{name: Sup, node_ref: 1, task_supervisor: T, dynamic_supervisor: D}
    ours = Meta.claimed(nil, config, Mod, self(), nil, 1)
    assert Enum.sort(Map.keys(ours)) == Enum.sort(Map.keys(read(recorded).meta))
  end

  test "a reservation is valid until it expires or is released" do
    meta = Meta.reserve(%Meta{}, "n@host", 40_000, 1_000)
    assert Meta.reserved_for(meta, 40_999) == "n@host"
    assert Meta.reserved_for(meta, 41_000) == nil
    assert Meta.reserved_for(Meta.release(meta), 1_000) == nil
  end

  defp read(%{"object_base64" => object}) do
    {:ok, stored} = object |> Base.decode64!() |> Decoder.decode!() |> StoredState.from_object_store_term()
    stored
  end
end
