defmodule DurableHandoff.ClientTest do
  @moduledoc """
  Callers, with a registry and servers that the test controls. Only tests whose name mentions a poll wait for
  one.
  """
  use DurableHandoff.ClientCase, async: true

  describe "with an owner" do
    setup :with_client

    test "the call returns its reply without waiting", %{sup: sup} = context do
      own(context)
      assert Client.call(FakeRegistry, sup, "k", :add, []) == {:ok, 1}
      assert FakeRegistry.count(sup, :subscribe) == 0
    end

    test "a cast arrives", %{sup: sup} = context do
      own(context)
      assert Client.cast(FakeRegistry, sup, "k", {:add, self()}, []) == :ok
      assert_receive {:added, 1}
    end

    test "the owner is busy beyond the timeout: {:error, :timeout}, and its late reply does not reach the mailbox",
         context do
      server = own(context)
      FakeServer.block(server)
      assert Client.call(FakeRegistry, context.sup, "k", :add, timeout: 10) == {:error, :timeout}
      send(server, :go_on)
      assert GenServer.call(server, :add) == 2
      refute_received _anything
    end

    test "a server that calls itself gets an error", %{sup: sup} do
      FakeRegistry.own(sup, "k", self())
      assert Client.call(FakeRegistry, sup, "k", :add, []) == {:error, :calling_self}
    end
  end

  describe "without an owner" do
    setup :with_client

    test "call, cast and await wait for it", %{sup: sup} = context do
      test = self()
      call = call(sup, "k", timeout: :infinity)
      cast = Task.async(fn -> Client.cast(FakeRegistry, sup, "k", {:add, test}, timeout: :infinity) end)
      await = Task.async(fn -> Client.await(FakeRegistry, sup, "k", timeout: :infinity) end)
      await_waiting(context, 3)
      server = announce(context)
      assert {:ok, _count} = await_task(call)
      assert :ok = await_task(cast)
      assert {:ok, ^server} = await_task(await)
      assert_receive {:added, _count}
    end

    test "no owner before the timeout: nothing was sent, and no caller waits any more", %{sup: sup} = context do
      assert Client.call(FakeRegistry, sup, "k", :add, timeout: 10) == {:error, :no_owner}
      assert Client.await(FakeRegistry, sup, "k", timeout: 0) == {:error, :no_owner}
      await_waiting(context, 0)
      assert FakeRegistry.subscribers(sup, "k") == []
    end

    test "the owner is registered between lookup and subscription: the caller still gets a reply",
         %{sup: sup} = context do
      server = start_server(context)
      FakeRegistry.on(sup, :subscribe, fn -> FakeRegistry.own(sup, "k", server) end)
      assert Client.call(FakeRegistry, sup, "k", :add, timeout: :infinity) == {:ok, 1}
      assert FakeRegistry.subscribers(sup, "k") == []
    end

    test "a thousand callers share one subscription, and one event serves all", %{sup: sup} = context do
      calls = for _ <- 1..1_000, do: call(sup, "k", timeout: :infinity)
      await_waiting(context, 1_000)
      assert FakeRegistry.count(sup, :subscribe) == 1
      announce(context)
      assert calls |> await_tasks() |> Enum.sort() == for(n <- 1..1_000, do: {:ok, n})
      # It answers first, and then ends its subscription.
      await_waiting(context, 0)
      assert FakeRegistry.subscribers(sup, "k") == []
    end
  end

  describe "the owner ends with the request in its mailbox" do
    setup :with_client

    for reason <- [
          :normal,
          :shutdown,
          {:shutdown, {:durable, :ignored}},
          {:shutdown, {:durable, {:init_failed, :cordoned}}}
        ] do
      test "because it was asked to stop, or its init failed (#{inspect(reason)}): sent again", context do
        call = end_owner_of_call(context, unquote(Macro.escape(reason)))
        await_waiting(context, 1)
        announce(context)
        assert await_task(call) == {:ok, 1}
      end
    end

    for reason <- [
          :killed,
          {:shutdown, :normal},
          {:shutdown, :delete},
          {:shutdown, :permanent},
          {:shutdown, {:durable, {:fatal_exit, :conflict}}},
          {:shutdown, {:durable, :of_a_later_version}},
          {:shutdown, {:durable, {:of_a_later_version, 1}}},
          {:shutdown, {:durable, {:init_failed, :conflict, 1}}}
        ] do
      test "possibly after a callback (#{inspect(reason)}): the reason is returned, not sent again", context do
        call = end_owner_of_call(context, unquote(Macro.escape(reason)))
        assert await_task(call) == {:error, unquote(Macro.escape(reason))}
      end
    end

    test "retry: :never returns its reason", context do
      call = end_owner_of_call(context, :shutdown, retry: :never)
      assert await_task(call) == {:error, :shutdown}
    end
  end

  # A call whose owner ends before it takes the request from its mailbox.
  defp end_owner_of_call(context, reason, options \\ []) do
    owner = own(context)
    FakeServer.block(owner)
    call = call(context.sup, "k", [timeout: :infinity] ++ options)
    await_queued(owner, 1)
    FakeServer.stop(owner, reason)
    call
  end

  describe "the owner ends while it handles the request" do
    setup :with_client

    test "with a reply: the reply is returned", %{sup: sup} = context do
      own(context)
      assert Client.call(FakeRegistry, sup, "k", {:add_and_stop, :shutdown}, []) == {:ok, 1}
    end

    test "by a crash: the reason is returned at once, not sent again", %{sup: sup} = context do
      own(context)
      assert Client.call(FakeRegistry, sup, "k", {:add_and_exit, :boom}, timeout: :infinity) == {:error, :boom}
      assert :counters.get(context.counter, 1) == 1
    end

    test "by a crash, retry: :always: sent again", %{sup: sup} = context do
      own(context)
      call = call(sup, "k", {:add_and_exit, :boom}, retry: :always, timeout: :infinity)
      await_waiting(context, 1)
      assert :counters.get(context.counter, 1) == 1
      second = announce(context)
      await_waiting(context, 1)
      assert :counters.get(context.counter, 1) == 2
      refute Process.alive?(second)
      Task.shutdown(call)
      await_waiting(context, 0)
    end

    test "normally and without a reply: counts as not handled, so such servers need retry: :never", context do
      own(context)
      reply = Client.call(FakeRegistry, context.sup, "k", {:add_and_exit, :normal}, retry: :never)
      assert reply == {:error, :normal}
    end
  end

  describe "the connection to the owner is lost" do
    setup :with_client

    test "retry: :always asks the same process again, which may still own the server", %{sup: sup} = context do
      server = own(context)
      for answer <- [{:lost, :noconnection}, {:ok, 1}], do: send(self(), {:answer, answer})
      send_to = fn ^server, _left_ms -> receive(do: ({:answer, answer} -> answer)) end
      call = Client.Call.new(FakeRegistry, sup, "k", :call, retry: :always)
      assert Client.Call.run(call, send_to) == {:ok, 1}
    end
  end

  describe "the registry is outdated" do
    setup :with_client

    test "and has an owner that has ended: waits for another, even if the old one is registered again", context do
      %{sup: sup} = context
      FakeRegistry.stale(sup)
      old = own(context)
      kill(old)
      call = call(sup, "k", timeout: :infinity)
      await_waiting(context, 1)
      FakeRegistry.tell(sup, "k", old)
      await_waiting(context, 1)
      announce(context)
      assert await_task(call) == {:ok, 1}
    end

    test "and has an owner that has ended: retry: :never returns :noproc", %{sup: sup} = context do
      FakeRegistry.stale(sup)
      old = own(context)
      kill(old)
      assert Client.call(FakeRegistry, sup, "k", :add, retry: :never) == {:error, :noproc}
    end

    for operation <- [:cast, :await, :never] do
      test "and then has an owner that has ended: #{operation} waits for another", %{sup: sup} = context do
        FakeRegistry.stale(sup)
        old = context |> start_server() |> tap(&kill/1)
        FakeRegistry.on(sup, :subscribe, fn -> FakeRegistry.own(sup, "k", old) end)
        waiting = operate(sup, unquote(operation))
        await_waiting(context, 1)
        server = announce(context)
        assert await_task(waiting) in [:ok, {:ok, 1}, {:ok, server}]
        if unquote(operation) == :cast, do: assert_receive({:added, 1})
      end
    end

    test "and has several dead owners in turn: a caller remembers them", %{sup: sup} = context do
      FakeRegistry.stale(sup)
      [first, second] = for _ <- 1..2, do: context |> start_server() |> tap(&kill/1)
      FakeRegistry.own(sup, "k", first)
      call = call(sup, "k", timeout: :infinity)
      await_waiting(context, 1)
      FakeRegistry.announce(sup, "k", second)
      FakeRegistry.announce(sup, "k", first)
      await_waiting(context, 1)
      announce(context)
      assert await_task(call) == {:ok, 1}
    end
  end

  defp operate(sup, :never), do: call(sup, "k", retry: :never, timeout: :infinity)

  defp operate(sup, :await), do: Task.async(fn -> Client.await(FakeRegistry, sup, "k", timeout: :infinity) end)

  defp operate(sup, :cast) do
    test = self()
    Task.async(fn -> Client.cast(FakeRegistry, sup, "k", {:add, test}, timeout: :infinity) end)
  end

  describe "the registry does not learn of the move, but the draining node sends a hint" do
    setup :with_client

    test "a waiting caller gets a reply", %{sup: sup} = context do
      call = call(sup, "k", timeout: :infinity)
      await_waiting(context, 1)
      hint(sup, [{"other", self()}, {"k", start_server(context)}])
      assert await_task(call) == {:ok, 1}
    end

    test "later callers get a reply", %{sup: sup} = context do
      hint(sup, [{"k", start_server(context)}])
      assert Client.call(FakeRegistry, sup, "k", :add, timeout: :infinity) == {:ok, 1}
      assert Client.call(FakeRegistry, sup, "k", :add, timeout: :infinity) == {:ok, 2}
      assert Server.counts(sup).subscriptions == 0
    end

    test "and keeps the old owner: later callers get a reply", %{sup: sup} = context do
      FakeRegistry.stale(sup)
      context |> own() |> kill()
      hint(sup, [{"k", start_server(context)}])
      assert Client.call(FakeRegistry, sup, "k", :add, timeout: :infinity) == {:ok, 1}
    end

    test "two hints: the second owner is tried", %{sup: sup} = context do
      first = start_server(context)
      hint(sup, [{"k", first}])
      kill(first)
      hint(sup, [{"k", start_server(context)}])
      assert Client.call(FakeRegistry, sup, "k", :add, timeout: :infinity) == {:ok, 1}
    end

    test "a hint to a process that has ended: nothing is handled twice, and the caller keeps waiting",
         %{sup: sup} = context do
      blocked = start_server(context)
      FakeServer.block(blocked)
      hint(sup, [{"k", blocked}])
      call = call(sup, "k", timeout: :infinity)
      await_queued(blocked, 1)
      FakeServer.stop(blocked, :shutdown)
      await_waiting(context, 1)
      # Another node sends the same outdated hint again.
      hint(sup, [{"k", blocked}])
      await_waiting(context, 1)
      announce(context)
      assert await_task(call) == {:ok, 1}
    end

    test "an owner in the registry takes precedence over a hint", %{sup: sup} = context do
      own(context)
      hint(sup, [{"k", self()}])
      assert Client.call(FakeRegistry, sup, "k", :add, timeout: :infinity) == {:ok, 1}
    end

    test "a hint of another version, or an invalid one, is ignored", %{sup: sup} = context do
      before = Process.whereis(Server.name(sup))
      server = start_server(context)

      for owners <- [:nonsense, [:nonsense | :improper], [{"k", :no_pid}, {"k"}, nil], %{}, nil],
          do: hint(sup, owners)

      for version <- [0, 2, :nonsense, nil],
          do: send(Server.name(sup), {DurableHandoff.Client, :owners, version, [{"k", server}]})

      assert Client.await(FakeRegistry, sup, "k", timeout: 10) == {:error, :no_owner}
      # The valid parts of a message count.
      hint(sup, [:nonsense, {"k", server} | :improper])
      assert Client.await(FakeRegistry, sup, "k", timeout: :infinity) == {:ok, server}
      assert Process.whereis(Server.name(sup)) == before
    end

    test "hints above the limit of a message are ignored", %{sup: sup} do
      hint(sup, for(n <- 1..5_000, do: {n, self()}))
      assert Server.counts(sup).hints == 1_000
    end
  end

  describe "without the client process" do
    test "a caller polls itself", %{sup: sup} = context do
      call = call(sup, "k", timeout: :infinity)
      wait_until(fn -> FakeRegistry.count(sup, :owner) > 3 end)
      context |> start_server() |> then(&FakeRegistry.own(sup, "k", &1))
      assert await_task(call) == {:ok, 1}
    end

    test "the timeout applies", %{sup: sup} do
      assert Client.call(FakeRegistry, sup, "k", :add, timeout: 30) == {:error, :no_owner}
      assert Client.call(FakeRegistry, sup, "k", :add, timeout: 0) == {:error, :no_owner}
    end

    test "a supervisor that does not run here is an error at once", %{sup: sup} do
      FakeRegistry.host(sup, nil)
      assert Client.call(FakeRegistry, sup, "k", :add, timeout: :infinity) == {:error, :supervisor_not_running}
    end

    test "a caller starts the server itself", %{sup: sup} = context do
      server = start_server(context)
      FakeRegistry.starts(sup, fn "k", {Room, %{a: 1}}, ms when ms in 1..10_000 -> {:ok, server} end)
      assert Client.call(FakeRegistry, sup, "k", :add, start: {Room, %{a: 1}}, timeout: :infinity) == {:ok, 1}
      FakeRegistry.starts(sup, fn _key, _start, _ms -> {:error, :full} end)
      options = [start: {Room, %{}}, timeout: :infinity]
      assert Client.call(FakeRegistry, sup, "l", :add, options) == {:error, {:start_failed, :full}}
    end

    test "a caller whose start must wait gets the reason at its timeout", %{sup: sup} do
      FakeRegistry.starts(sup, fn _key, _start, _ms -> {:again, :no_quorum} end)

      # If this VM is delayed, its time ends before the first start. Then the test repeats.
      wait_until(fn ->
        case Client.call(FakeRegistry, sup, "k", :add, start: {Room, %{}}, timeout: 300) do
          {:error, {:start_failed, :no_quorum}} -> true
          {:error, :no_owner} -> FakeRegistry.count(sup, :start) > 0 and flunk("the reason was lost")
        end
      end)
    end
  end

  test "an invalid option raises and names the right one", %{sup: sup} do
    for {options, text} <- [
          {[timout: 5], ~r/unknown option :timout, did you mean :timeout/},
          {[timeout: -1], ~r/:timeout got -1, expected milliseconds/},
          {[retry: true], ~r/:retry got true, expected one of :unhandled, :never, :always/},
          {[start: Room], ~r/:start got Room, expected nil or {module, initial_state}/},
          {:timeout, ~r/got :timeout, expected a keyword list such as \[timeout: 5000\]/},
          {5_000, ~r/got 5000, expected a keyword list, did you mean \[timeout: 5000\]\?/},
          {:infinity, ~r/did you mean \[timeout: :infinity\]\?/},
          {[retry: :never, timeout: 1.5], ~r/:timeout got 1.5/}
        ] do
      assert_raise ArgumentError, text, fn -> Client.call(FakeRegistry, sup, "k", :add, options) end
    end

    assert_raise ArgumentError, ~r/options of cast:\n.*unknown option :retry/, fn ->
      Client.cast(FakeRegistry, sup, "k", :add, retry: :never)
    end
  end

  defp with_client(context) do
    start_client(context)
    :ok
  end

  # Sends a hint as a draining node does.
  defp hint(sup, owners), do: send(Server.name(sup), {DurableHandoff.Client, :owners, 1, owners})

  defp own(context), do: context |> start_server() |> tap(&FakeRegistry.own(context.sup, "k", &1))
  defp announce(context), do: context |> start_server() |> tap(&FakeRegistry.announce(context.sup, "k", &1))

  # Waits until it has ended, because an earlier caller would still find it and get its exit reason.
  defp kill(server) do
    ref = Process.monitor(server)
    Process.exit(server, :kill)
    assert_receive {:DOWN, ^ref, _, _, _}
  end

  defp await_queued(server, count) do
    wait_until(fn -> Process.info(server, :message_queue_len) == {:message_queue_len, count} end)
  end
end
