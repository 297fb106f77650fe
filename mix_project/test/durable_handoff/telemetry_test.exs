defmodule DurableHandoff.TelemetryTest do
  # Not async: it loads a module named :telemetry, as the library of that name would be loaded.
  use ExUnit.Case

  import DurableHandoff.Eventually, only: [await_name: 1]

  alias DurableHandoff.{Clock, Deadline, Report, Telemetry}
  alias DurableHandoff.Client.{Call, FakeRegistry}

  @server %{key: "k", module: Room, meta: nil, pid: nil}
  @order %{number: 2, target: "a@h", timeout_ms: 1_000}
  @deadline Deadline.drain(1_000, 30_000)

  # Of eight servers five moved.
  defp report(left) do
    %Report{
      supervisor: Sup,
      total: 8,
      moved: 5,
      left: left,
      retried: 2,
      gap_us: %{count: 0, p50: 0, p90: 0, p99: 0, max: 0},
      gap_ms: %{count: 5, p50: 1, p90: 1, p99: 1, max: 1},
      duration_us: 1_500,
      duration_ms: 2.0,
      targets: %{"a@h" => 5},
      concurrency: %{last: 1, highest: 1}
    }
  end

  test "without :telemetry an event is ignored" do
    refute Code.ensure_loaded?(:telemetry)
    assert Telemetry.fallback(Sup, :failures) == :ok
    assert Telemetry.drain_start(:drain, Sup, @deadline, 1, 0) == :ok
  end

  describe "with :telemetry" do
    setup do
      await_name(:telemetry_test)
      Process.register(self(), :telemetry_test)

      Module.create(
        :telemetry,
        quote do
          def execute(event, measurements, metadata), do: send(:telemetry_test, {event, measurements, metadata})
        end,
        Macro.Env.location(__ENV__)
      )

      on_exit(fn ->
        :code.purge(:telemetry)
        :code.delete(:telemetry)
      end)
    end

    test "the start and the end of a drain" do
      Telemetry.drain_start(:drain, Sup, @deadline, 5, 1)

      assert_received {[:durable_handoff, :drain, :start], %{servers: 5, excluded: 1, system_time: _} = measured,
                       %{supervisor: Sup}}

      assert measured.deadline - measured.monotonic_time == native(30_000_000)

      report = report(%{excluded: 2, no_target: 1})

      Telemetry.drain_stop(:drain, report, @deadline, 3_000)
      duration = native(2_000)

      assert_received {[:durable_handoff, :drain, :stop],
                       %{duration: ^duration, total: 8, moved: 5, left: 1, excluded: 2, retried: 2},
                       %{supervisor: Sup, report: ^report}}
    end

    test "the end of a drain: servers that have ended by themselves are not left" do
      Telemetry.drain_stop(:drain, report(%{gone: 2, no_target: 1}), @deadline, 3_000)
      assert_received {[:durable_handoff, :drain, :stop], %{total: 8, moved: 5, left: 1}, %{supervisor: Sup}}
    end

    test "the end of a rebalance: servers that were not to move are not left" do
      kept = %{kept: 10, moved_lately: 4, excluded: 2, deadline: 3}
      Telemetry.drain_stop(:rebalance, %{report(kept) | goal: :rebalance, total: 24}, @deadline, 3_000)

      assert_received {[:durable_handoff, :rebalance, :stop], %{total: 24, moved: 5, left: 3, excluded: 2},
                       %{supervisor: Sup}}
    end

    test "the start and the end of a shutdown, in instants of System.monotonic_time/0" do
      before = System.monotonic_time()
      begin_us = Clock.now_us()
      deadline = Deadline.drain(begin_us, 30_000)
      Telemetry.shutdown_start(Sup, deadline)
      assert_received {[:durable_handoff, :shutdown, :start], started, %{supervisor: Sup}}
      # The engine's clock counts whole microseconds.
      assert started.monotonic_time in (before - native(1))..System.monotonic_time()
      assert started.deadline == started.monotonic_time + native(30_000_000)

      Telemetry.shutdown_stop(Sup, deadline, begin_us + 5_000)
      assert_received {[:durable_handoff, :shutdown, :stop], stopped, %{supervisor: Sup}}
      duration = native(5_000)
      assert stopped == %{started | monotonic_time: started.monotonic_time + duration} |> Map.put(:duration, duration)
    end

    test "an attempt with a result" do
      Telemetry.attempt(Sup, @server, @order, %{outcome: {:moved, nil}, why: nil, latency_us: 10})

      assert_received {[:durable_handoff, :attempt, :stop], %{duration: _},
                       %{supervisor: Sup, key: "k", module: Room, target: "a@h", attempt: 2, outcome: {:moved, nil}}}
    end

    test "an attempt that raised or died" do
      raised = %{outcome: {:displaced, :server}, why: {:raised, :exit, :boom}, latency_us: 1}
      Telemetry.attempt(Sup, @server, @order, raised)
      assert_received {[:durable_handoff, :attempt, :exception], _, %{kind: :exit, reason: :boom, attempt: 2}}

      Telemetry.attempt(Sup, @server, @order, %{outcome: :untouched, why: :died, latency_us: 1})
      assert_received {[:durable_handoff, :attempt, :exception], _, %{kind: :exit, reason: :died}}
    end

    test "a call that waited, with each result" do
      call = %{Call.new(FakeRegistry, Sup, "k", :call, []) | unanswered: 1, waited_us: 5}
      assert Telemetry.waited(call, 9, {:ok, :reply}) == :ok

      [duration, waited] = for us <- [9, 5], do: System.convert_time_unit(us, :microsecond, :native)

      assert_received {[:durable_handoff, :wait, :stop], %{duration: ^duration, waited: ^waited, unanswered: 1},
                       %{supervisor: Sup, key: "k", operation: :call, result: :ok, reason: nil}}

      Telemetry.waited(call, 9, {:error, :no_owner})
      assert_received {[:durable_handoff, :wait, :stop], _times, %{result: :error, reason: :no_owner}}
    end

    test "a call that waits sends one event, a call without waiting none" do
      assert DurableHandoff.call(:nowhere, "k", :add) == {:error, :supervisor_not_running}

      assert_received {[:durable_handoff, :wait, :stop], %{unanswered: 0},
                       %{operation: :call, reason: :supervisor_not_running}}

      assert DurableHandoff.whereis(:nowhere, "k") == nil
      refute_received {[:durable_handoff | _], _, _}
    end

    test "a fallback" do
      Telemetry.fallback(Sup, {:drain_failed, :x})
      assert_received {[:durable_handoff, :fallback], %{count: 1}, %{supervisor: Sup, reason: {:drain_failed, :x}}}
    end
  end

  defp native(us), do: System.convert_time_unit(us, :microsecond, :native)
end
