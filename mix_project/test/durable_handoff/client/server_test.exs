defmodule DurableHandoff.Client.ServerTest do
  @moduledoc "The client process: its polls, its limits, the servers it has started, and callers that die."
  use DurableHandoff.ClientCase, async: true

  alias DurableHandoff.Client.Call

  describe "polling" do
    test "finds an owner whose event was lost", %{sup: sup} = context do
      start_client(context, poll_ms: 10)
      call = call(sup, "k", timeout: :infinity)
      await_waiting(context, 1)
      FakeRegistry.own(sup, "k", start_server(context))
      assert await_task(call) == {:ok, 1}
    end

    test "subscribes again when DurableServer has restarted", %{sup: sup} = context do
      host = spawn(fn -> Process.sleep(:infinity) end)
      FakeRegistry.host(sup, host)
      start_client(context, poll_ms: 50)
      call = call(sup, "k", timeout: :infinity)
      await_waiting(context, 1)
      # Subscriptions end with DurableServer.
      :ets.insert(sup, {{:subscribers, "k"}, []})
      FakeRegistry.host(sup, self())
      Process.exit(host, :kill)
      wait_until(fn -> FakeRegistry.count(sup, :subscribe) == 2 end)
      FakeRegistry.announce(sup, "k", start_server(context))
      assert await_task(call) == {:ok, 1}
    end

    test "replies to callers when DurableServer does not come back", %{sup: sup} = context do
      FakeRegistry.host(sup, nil)
      start_client(context, poll_ms: 10)
      assert Client.call(FakeRegistry, sup, "k", :add, timeout: :infinity) == {:error, :supervisor_not_running}
      assert Client.await(FakeRegistry, sup, "k", timeout: :infinity) == {:error, :supervisor_not_running}
    end

    test "counts polls, not time, so that a pause of the node does not count", %{sup: sup} = context do
      {waiting, call} = call_without_supervisor(context)
      for _ <- 1..4, do: send(waiting, :poll)
      assert Server.counts(sup).callers == 1
      send(waiting, :poll)
      assert await_task(call) == {:error, :supervisor_not_running}
    end

    test "starts to count anew when DurableServer is away again", %{sup: sup} = context do
      {waiting, call} = call_without_supervisor(context)
      for _ <- 1..5, do: send(waiting, :poll)
      assert await_task(call) == {:error, :supervisor_not_running}
      call(sup, "k", timeout: :infinity)
      await_waiting(context, 1)
      send(waiting, :poll)
      assert Server.counts(sup).callers == 1
    end

    test "ends when no caller waits", %{sup: sup} = context do
      start_client(context, poll_ms: 10)
      assert Client.call(FakeRegistry, sup, "k", :add, timeout: 0) == {:error, :no_owner}
      await_waiting(context, 0)
      wait_until(fn -> not Server.counts(sup).polling? end)
    end
  end

  test "no caller ends with a registry that is linked to its subscribers", %{sup: sup} = context do
    parent = self()
    registry = spawn(fn -> Process.sleep(:infinity) end)
    FakeRegistry.on(sup, :subscribe, fn -> Process.link(registry) && send(parent, :linked) end)
    waiting = start_client(context)
    call = call(sup, "k", timeout: :infinity)
    assert_receive :linked
    await_waiting(context, 1)
    Process.exit(registry, :kill)
    FakeRegistry.announce(sup, "k", start_server(context))
    assert await_task(call) == {:ok, 1}
    assert Process.whereis(Server.name(sup)) == waiting
  end

  test "waiting callers that die are removed, and the subscription with the last", %{sup: sup} = context do
    start_client(context)
    pids = for _ <- 1..3, do: spawn(fn -> Client.call(FakeRegistry, sup, "k", :add, timeout: :infinity) end)
    other = call(sup, "other", timeout: :infinity)
    await_waiting(context, 4)
    for pid <- pids, do: Process.exit(pid, :kill)
    await_waiting(context, 1)
    assert FakeRegistry.subscribers(sup, "k") == []
    FakeRegistry.announce(sup, "other", start_server(context))
    assert await_task(other) == {:ok, 1}
  end

  test "an event about an owner that has ended answers no caller", %{sup: sup} = context do
    start_client(context)
    await = Task.async(fn -> Client.await(FakeRegistry, sup, "k", timeout: :infinity) end)
    await_waiting(context, 1)
    ended = spawn(fn -> :ok end)
    wait_until(fn -> not Process.alive?(ended) end)
    FakeRegistry.tell(sup, "k", ended)
    server = start_server(context)
    FakeRegistry.announce(sup, "k", server)
    assert await_task(await) == {:ok, server}
  end

  describe "limits" do
    test "too many callers for one key: an error at once, and the others are served", %{sup: sup} = context do
      start_client(context, limits: Limits.new!(max_waiting_per_key: 2))
      calls = for _ <- 1..2, do: call(sup, "k", timeout: :infinity)
      await_waiting(context, 2)
      overloaded = {:error, {:overloaded, %{limit: :max_waiting_per_key, max: 2}}}
      assert Client.call(FakeRegistry, sup, "k", :add, timeout: :infinity) == overloaded
      other = call(sup, "other", timeout: :infinity)
      await_waiting(context, 3)
      FakeRegistry.announce(sup, "other", start_server(context))
      FakeRegistry.announce(sup, "k", start_server(context))
      assert [other | calls] |> await_tasks() |> Enum.sort() == [{:ok, 1}, {:ok, 2}, {:ok, 3}]
    end

    test "too many callers in total: an error at once for any key, until one has ended", %{sup: sup} = context do
      start_client(context, limits: Limits.new!(max_waiting: 2))
      [first, _second] = for key <- ["a", "b"], do: call(sup, key, timeout: :infinity)
      await_waiting(context, 2)
      overloaded = {:error, {:overloaded, %{limit: :max_waiting, max: 2}}}
      assert Client.call(FakeRegistry, sup, "c", :add, timeout: :infinity) == overloaded
      Task.shutdown(first, :brutal_kill)
      await_waiting(context, 1)
      assert Client.call(FakeRegistry, sup, "c", :add, timeout: 0) == {:error, :no_owner}
    end

    test "invalid limits raise in child_spec/1" do
      assert_raise ArgumentError, ~r/did you mean :max_waiting_per_key/, fn ->
        Client.child_spec(supervisor: Sup, max_waiting_pr_key: 1)
      end

      assert_raise ArgumentError, ~r/:max_waiting got 0, expected a positive integer/, fn ->
        DurableHandoff.Supervisor.start_link(name: Sup, client: [max_waiting: 0])
      end

      assert_raise ArgumentError, ~r/:supervisor got nil/, fn -> Client.child_spec([]) end
    end
  end

  describe "start:" do
    test "many callers: one start, and all get a reply before the registry has the owner",
         %{sup: sup} = context do
      start_client(context)
      server = start_server(context)
      starting(context)
      calls = for _ <- 1..100, do: call(sup, "k", start: {Room, %{}}, timeout: :infinity)
      assert_receive {:starting, starter}
      await_waiting(context, 100)
      send(starter, {:ok, server})
      assert calls |> await_tasks() |> Enum.sort() == for(n <- 1..100, do: {:ok, n})
      assert FakeRegistry.count(sup, :start) == 1
    end

    test "the server is being moved: the move wins, and the start is refused", %{sup: sup} = context do
      start_client(context)
      {call, starter} = call_starting(context)
      server = start_server(context)
      FakeRegistry.announce(sup, "k", server)
      assert await_task(call) == {:ok, 1}
      send(starter, {:again, :reserved})
      await_no_start(context)
    end

    test "the server is being moved and the move fails: a later try starts it", context do
      start_client(context, poll_ms: 10)
      {call, starter} = call_starting(context)
      send(starter, {:again, :reserved})
      assert_receive {:starting, starter}
      send(starter, {:ok, start_server(context)})
      assert await_task(call) == {:ok, 1}
    end

    test "the server ends at each request, as if it had been moved: it is not started without a pause", context do
      %{sup: sup} = context
      start_client(context)
      FakeRegistry.starts(sup, fn "k", _start, _ms -> {:ok, start_server(context)} end)
      call = Call.new(FakeRegistry, sup, "k", :call, start: {Room, %{}}, timeout: 1_000)
      # No request takes time, so the call's time does not end during one, however busy this machine is.
      ends = fn server, _ms -> Process.exit(server, :kill) && {:unhandled, :normal} end
      assert await_task(Task.async(fn -> Call.run(call, ends) end)) == {:error, :no_owner}
      assert FakeRegistry.count(sup, :start) < 10
    end

    test "the server cannot be started: callers with start: get the reason, the others keep waiting",
         %{sup: sup} = context do
      start_client(context)
      patient = call(sup, "k", timeout: :infinity)
      await_waiting(context, 1)
      {call, starter} = call_starting(context)
      send(starter, {:error, :cordoned})
      assert await_task(call) == {:error, {:start_failed, :cordoned}}
      await_waiting(context, 1)
      FakeRegistry.announce(sup, "k", start_server(context))
      assert await_task(patient) == {:ok, 1}
    end

    for reason <- [:cordoned, :permanently_crashed] do
      test "the server is #{reason}: another caller's module could not start it either, and is not tried",
           %{sup: sup} = context do
        start_client(context)
        {call, starter} = call_starting(context)
        other = call(sup, "k", start: {OtherRoom, %{}}, timeout: :infinity)
        await_waiting(context, 2)
        send(starter, {:error, unquote(reason)})
        for call <- [call, other], do: assert(await_task(call) == {:error, {:start_failed, unquote(reason)}})
        assert FakeRegistry.count(sup, :start) == 1
      end
    end

    for {answer, poll_ms} <- [error: 3_600_000, again: 10] do
      test "a caller's start fails (#{answer}): another caller's start is tried", %{sup: sup} = context do
        start_client(context, poll_ms: unquote(poll_ms))
        {server, test} = {start_server(context), self()}

        FakeRegistry.starts(sup, fn
          "k", {Rom, %{}}, _ms ->
            send(test, {:starting, self()})
            receive(do: (result -> result))

          "k", {Room, %{}}, _ms ->
            {:ok, server}
        end)

        wrong = call(sup, "k", start: {Rom, %{}}, timeout: :infinity)
        assert_receive {:starting, starter}
        right = call(sup, "k", start: {Room, %{}}, timeout: 60_000)
        await_waiting(context, 2)
        send(starter, {unquote(answer), :undef})
        assert {:ok, _count} = await_task(right)
        expected = if unquote(answer) == :error, do: [{:error, {:start_failed, :undef}}], else: [{:ok, 1}, {:ok, 2}]
        assert await_task(wrong) in expected
      end
    end

    test "a start fails: it ends the calls with the same module, whatever their initial states",
         %{sup: sup} = context do
      start_client(context)
      test = self()

      FakeRegistry.starts(sup, fn "k", start, _ms ->
        send(test, {:starting, self(), start})
        receive(do: (result -> result))
      end)

      first = call(sup, "k", start: {Room, %{n: 1}}, timeout: :infinity)
      assert_receive {:starting, starter, {Room, %{n: 1}}}
      second = call(sup, "k", start: {Room, %{n: 2}}, timeout: :infinity)
      await_waiting(context, 2)
      send(starter, {:error, :undef})
      for call <- [first, second], do: assert(await_task(call) == {:error, {:start_failed, :undef}})
      refute_received {:starting, _again, _start}
    end

    test "the server cannot be started before the timeout: the error has the last reason for its key", context do
      %{sup: sup} = context
      start_client(context, poll_ms: 10)
      FakeRegistry.starts(sup, fn key, _start, _ms -> {:again, {:no_quorum, key}} end)

      # If this VM is delayed when their time ends, the error lacks the reason. Then the test repeats.
      wait_until(fn ->
        calls = for key <- ["k", "l"], do: call(sup, key, start: {Room, %{}}, timeout: 1_000)

        case await_tasks(calls) do
          [error: :no_owner, error: _reason] -> false
          [error: _reason, error: :no_owner] -> false
          [error: {:start_failed, {:no_quorum, "k"}}, error: {:start_failed, {:no_quorum, "l"}}] -> true
        end
      end)

      assert await_task(call(sup, "k", timeout: 10)) == {:error, :no_owner}
    end

    test "the start has not ended at the timeout: {:error, :no_owner}", %{sup: sup} = context do
      start_client(context)
      starting(context)
      assert await_task(call(sup, "k", start: {Room, %{}}, timeout: 1_000)) == {:error, :no_owner}
      assert_receive {:starting, _starter}
      await_waiting(context, 0)
    end

    test "only the start returns the owner: it serves later callers, too", %{sup: sup} = context do
      start_client(context)
      server = start_server(context)
      FakeRegistry.starts(sup, fn "k", _start, _ms -> {:ok, server} end)
      assert await_task(call(sup, "k", start: {Room, %{}}, timeout: :infinity)) == {:ok, 1}
      assert await_task(call(sup, "k", timeout: :infinity)) == {:ok, 2}
      assert FakeRegistry.count(sup, :start) == 1
    end

    test "after the longest start there is time for another try", %{sup: sup} = context do
      start_client(context)
      test = self()

      FakeRegistry.starts(sup, fn "k", _start, ms ->
        send(test, {:may_take, ms})
        {:error, :full}
      end)

      for {timeout, most} <- [{5_000, 2_500}, {60_000, 10_000}, {:infinity, 10_000}] do
        assert await_task(call(sup, "k", start: {Room, %{}}, timeout: timeout)) == {:error, {:start_failed, :full}}
        assert_receive {:may_take, ms} when ms >= 1 and ms <= most
      end
    end

    test "the starting process dies: the caller gets its exit reason", context do
      start_client(context)
      {call, starter} = call_starting(context)
      Process.exit(starter, :kill)
      assert await_task(call) == {:error, {:start_failed, :killed}}
    end

    test "the caller has ended: no start", %{sup: sup} = context do
      start_client(context)
      starting(context)
      running = for n <- 1..64, do: call(sup, "busy#{n}", start: {Room, %{}}, timeout: :infinity)
      await_waiting(context, 64)
      gone = call(sup, "gone", start: {Room, %{}}, timeout: :infinity)
      await_waiting(context, 65)
      Task.shutdown(gone, :brutal_kill)
      await_waiting(context, 64)

      for _ <- 1..64 do
        assert_receive {:starting, starter}
        send(starter, {:error, :full})
      end

      for call <- running, do: assert(await_task(call) == {:error, {:start_failed, :full}})
      await_no_start(context)
      assert FakeRegistry.count(sup, :start) == 64
    end
  end

  # A call that waits while DurableServer is away.
  defp call_without_supervisor(%{sup: sup} = context) do
    FakeRegistry.host(sup, nil)
    waiting = start_client(context)
    call = call(sup, "k", timeout: :infinity)
    await_waiting(context, 1)
    {waiting, call}
  end

  # Every start sends `{:starting, pid}` to the test, which replies with the result of the start.
  defp starting(%{sup: sup}) do
    test = self()

    FakeRegistry.starts(sup, fn _key, {Room, %{}}, _timeout_ms ->
      send(test, {:starting, self()})

      receive do
        result -> result
      end
    end)
  end

  # A call with `start:`, and the process that starts the server.
  defp call_starting(%{sup: sup} = context) do
    starting(context)
    call = call(sup, "k", start: {Room, %{}}, timeout: :infinity)
    assert_receive {:starting, starter}
    {call, starter}
  end

  defp await_no_start(%{sup: sup}), do: wait_until(fn -> Server.counts(sup).starts == 0 end)
end
