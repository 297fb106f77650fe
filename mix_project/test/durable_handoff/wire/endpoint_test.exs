defmodule DurableHandoff.Wire.EndpointTest do
  # The test acts as a Rust node of a later version. The endpoint is the one that the application starts.
  use ExUnit.Case

  import DurableHandoff.LogEvents

  alias DurableHandoff.Wire
  alias DurableHandoff.Wire.Endpoint

  @moduletag :capture_log

  test "a Rust node of another version is refused each time that it announces itself, and logged when its version is new or has changed" do
    before = Endpoint.info().version
    [first, second] = for _ <- 1..2, do: System.unique_integer([:positive]) + 1_000
    assert announced(List.duplicate(first, 10)) == [warning: first]
    assert announced([first, second, second, first]) == [warning: second, warning: first]
    assert Endpoint.info().version == before + 14
  end

  test "an announcement of a process of this node, which cannot be a Rust node, is ignored and counted" do
    before = Endpoint.info()
    send(Wire.endpoint_process(), {:durable_handoff, 1, :announce, self(), %{release: "1.0", accepting: true}})
    :sys.get_state(Wire.endpoint_process())
    assert Endpoint.info() == %{before | ignored: before.ignored + 1}
  end

  test "a Rust node that refuses a message is logged with its reason" do
    {_state, log} =
      collect(
        fn ->
          send(Wire.endpoint_process(), Wire.refuse(nil, {:full, "nodes", 7}))
          :sys.get_state(Wire.endpoint_process())
        end,
        &(&1[:durable_handoff] == :rust_node_refused)
      )

    assert [{:warning, :rust_node_refused, %{reason: {:full, "nodes", 7}}}] = log
  end

  # Announces each of these versions, and returns the log lines about that.
  defp announced(versions) do
    {_state, log} =
      collect(
        fn ->
          for version <- versions do
            send(Wire.endpoint_process(), {:durable_handoff, version, :announce, self(), :of_the_future})
            assert_receive {:durable_handoff, 1, :refuse, nil, {:version, ^version, 1}}
          end

          # Answered after all lines are logged.
          :sys.get_state(Wire.endpoint_process())
        end,
        &(&1[:durable_handoff] == :rust_node_version)
      )

    for {level, :rust_node_version, %{version: version}} <- log, do: {level, version}
  end
end
