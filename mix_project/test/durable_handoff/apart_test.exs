defmodule DurableHandoff.ApartTest do
  @moduledoc "Children that are kept apart."
  use ExUnit.Case, async: true

  alias DurableHandoff.Apart

  @moduletag :capture_log

  describe "a child that crashes again and again" do
    setup do
      test = self()
      child = %{id: :child, start: {Agent, :start_link, [fn -> send(test, {:started, self()}) end]}}
      {:ok, above} = Supervisor.start_link([Apart.child(:apart, child)], strategy: :one_for_one, max_restarts: 0)
      [{:apart, apart, _type, _modules}] = Supervisor.which_children(above)
      kill_until_given_up(apart)
      {:ok, above: above, apart: apart}
    end

    test "ends no other process, and is started again", %{above: above, apart: apart} do
      assert [{:apart, ^apart, _type, _modules}] = Supervisor.which_children(above)
      send(apart, :start)
      assert_receive {:started, child}
      assert Process.alive?(child)
      # A second timer starts no second one.
      send(apart, :start)
      :sys.get_state(apart)
      refute_received {:started, _second}
    end

    test "ends with the supervisor above, also after it was started again", %{above: above, apart: apart} do
      send(apart, :start)
      assert_receive {:started, child}
      monitor = Process.monitor(child)
      Supervisor.stop(above)
      assert_receive {:DOWN, ^monitor, :process, ^child, :shutdown}
    end
  end

  test "a child that cannot be started at first refuses the start, as one that is not kept apart" do
    Process.flag(:trap_exit, true)
    child = %{id: :child, start: {GenServer, :start_link, [__MODULE__.Refuses, :badly_configured]}}
    assert {:error, reason} = Supervisor.start_link([Apart.child(:apart, child)], strategy: :one_for_one)
    assert {:shutdown, {:failed_to_start_child, :apart, {:shutdown, {:failed_to_start_child, :child, why}}}} = reason
    assert why == :badly_configured
  end

  defmodule Refuses do
    use GenServer
    @impl true
    def init(reason), do: {:stop, reason}
  end

  defp kill_until_given_up(apart) do
    receive do
      {:started, child} ->
        monitor = Process.monitor(child)
        Process.exit(child, :kill)
        assert_receive {:DOWN, ^monitor, :process, ^child, _reason}
        kill_until_given_up(apart)
    after
      0 ->
        case :sys.get_state(apart) do
          {_child, nil} -> :ok
          {_child, _supervisor} -> kill_until_given_up(apart)
        end
    end
  end
end
