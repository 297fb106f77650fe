defmodule DurableHandoff.Host.SyncTest do
  # Primary filters of the logger are the VM's.
  use ExUnit.Case, async: false

  import DurableHandoff.Eventually
  import ExUnit.CaptureLog

  alias DurableHandoff.Host.Sync

  defmodule Server do
    @moduledoc false
    # A server whose state is unchanged, or whose write fails, for which DurableServer logs an error.
    use GenServer

    @impl true
    def init(line), do: {:ok, line}

    @impl true
    def handle_call({:durable, :get_etag}, _from, line), do: {:reply, {:ok, "etag"}, line}

    @impl true
    def handle_info({:durable, :sync}, {module, text} = line) do
      :logger.log(:error, text, %{mfa: {module, :handle_info, 2}})
      {:noreply, line}
    end
  end

  defmodule Gated do
    @moduledoc false
    # A server whose writes fail. After each failed write it answers one request and waits until the test
    # releases it.
    use GenServer

    @impl true
    def init(state), do: {:ok, state}

    @impl true
    def handle_call({:durable, :get_etag}, _from, failed?) do
      {:reply, {:ok, "etag"}, false, if(failed?, do: {:continue, :gate}, else: :infinity)}
    end

    @impl true
    def handle_continue(:gate, state) do
      receive do
        :go_on -> {:noreply, state}
      end
    end

    @impl true
    def handle_info({:durable, :sync}, _failed?) do
      :logger.log(:error, "k failed periodic sync", %{mfa: {DurableServer, :handle_info, 2}})
      {:noreply, true}
    end
  end

  defp sync(watch, module, text) do
    pid = start_supervised!(%{id: make_ref(), start: {GenServer, :start_link, [Server, {module, text}]}})
    {result, _log} = with_log(fn -> Sync.run(pid, watch, 30_000) end)
    result
  end

  defp watch(name) do
    watch = Sync.watch()
    :ok = Sync.listen(name, watch)
    on_exit(fn -> :logger.remove_primary_filter(:"#{name}_handoff_syncs") end)
    watch
  end

  test "a late drain ends while the next one runs: failed syncs are still noticed" do
    overdue = watch(Sync.Later)
    later = watch(Sync.Later)
    assert Sync.blind?(overdue)
    Sync.unwatch(overdue)
    refute Sync.blind?(later)
    assert {:failed, _cause} = sync(later, DurableServer, "k failed periodic sync: :no_quorum")

    Sync.unwatch(later)
    assert Sync.blind?(later)
  end

  test "a failed sync is noticed even if its log line cannot be formatted" do
    watch = watch(Sync.Unreadable)
    assert {:failed, _cause} = sync(watch, DurableServer, ["caf", <<233>>])
    assert {:failed, "k" <> _rest} = sync(watch, DurableServer, "k failed periodic sync: :no_quorum")
    refute Sync.blind?(watch)
  end

  test "two processes that watch one server both notice its failed writes" do
    watch = watch(Sync.Both)
    pid = start_supervised!(%{id: make_ref(), start: {GenServer, :start_link, [Gated, false]}})

    {_result, _log} =
      with_log(fn ->
        :sys.suspend(pid)
        first = Task.async(fn -> Sync.run(pid, watch, 30_000) end)
        await_queued(pid, 3)
        second = Task.async(fn -> Sync.run(pid, watch, 30_000) end)
        await_queued(pid, 6)
        :sys.resume(pid)
        # The write for the second process fails after the first one has its result.
        assert {:failed, _cause} = Task.await(first, 30_000)
        send(pid, :go_on)
        assert {:failed, _cause} = Task.await(second, 30_000)
        send(pid, :go_on)
      end)
  end

  defp await_queued(pid, count),
    do: wait_until(fn -> Process.info(pid, :message_queue_len) == {:message_queue_len, count} end)

  test "an error logged by the server's callbacks does not count as a failed sync" do
    assert :unchanged = sync(watch(Sync.Own), MyApp.Server, "no such item")
  end
end
