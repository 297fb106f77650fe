defmodule Contract.EndsTest do
  @moduledoc """
  Every way in which a durable server ends: what its caller gets, the exit reason of the process, and what is
  stored.
  """

  use ClusterCase, nodes: 2

  setup context, do: start(context)

  @rehome {:durable, {:stop_for_rehome, "other@host", 40_000, :normal}}

  for reason <- [
        :normal,
        :permanent,
        :delete,
        {:shutdown, :normal},
        {:shutdown, :permanent},
        {:shutdown, :delete},
        {:error, :broken},
        :shutdown,
        :no_such_reason
      ] do
    test "a callback stops the server with #{inspect(reason)}", context do
      reason = unquote(Macro.escape(reason))
      ended(context, "callback stops with #{inspect(reason)}", fn pid -> ask(pid, {:stop, reason}) end)
    end
  end

  test("a callback raises", context, do: ended(context, "callback raises", &ask(&1, :crash)))

  test "messages that stop a server", context do
    for {name, message} <- [
          {"graceful", {:stop_with_status, :stopped_graceful, :shutdown}},
          {"permanent", {:stop_with_status, :stopped_permanent, :shutdown}},
          {"rehome", elem(@rehome, 1)}
        ] do
      ended(context, "message #{elem(message, 0)}, #{name}", &ask(&1, {:durable, message}), name)
    end

    ended(context, "message sync_and_stop", &send_only(&1, {:durable, {:sync_and_stop, :shutdown}}), "terminator")
    ended(context, "exit signal :kill", &kill_process/1, "killed")
    dynamic = :"#{context.sup}_dynamic"
    stop = &call(context.a, DynamicSupervisor, :terminate_child, [dynamic, &1])
    ended(context, "its dynamic supervisor stops it", stop, "shutdown")
  end

  test "the supervisor's functions that stop a server", %{a: a, sup: sup} = context do
    for function <- [:terminate_child, :terminate_child_permanent, :terminate_and_delete_child] do
      ended(context, "#{function}", fn _pid -> call(a, Host, function, [sup, "#{function}"]) end, "#{function}")
    end
  end

  test "another owner wrote the object: at a :sync reply, at the message :sync, and at the final write", context do
    for {then, work} <- [
          {"a callback with :sync", &ask(&1, :add_sync)},
          {"the message :sync", &send_only(&1, {:durable, :sync})},
          {"stop_for_rehome", &ask(&1, @rehome)}
        ] do
      pid = start_server(context, context.a, Counter, then)
      if then == "the message :sync", do: ask(pid, :add)
      overwrite(context, then)
      ended(context, "object overwritten by another owner, then #{then}", pid, then, work)
    end
  end

  test "the store fails a write: at a :sync reply, at the message :sync, and at the final write",
       %{a: a, store: store} = context do
    fail = &SimulatedStore.fail_next(store, :put, storage_key(context, &1), :slow_down)
    runs_on = fn pid, key -> {call(a, Process, :alive?, [pid]), count(context, key)} end

    pid = start_server(context, a, Counter, "sync")
    fail.("sync")
    record(context, "store fails, a callback with :sync", outcome(fn -> ask(pid, :add_sync) end))
    record(context, "store fails, a callback with :sync: runs on", runs_on.(pid, "sync"))

    pid = start_server(context, a, Counter, "message")
    1 = ask(pid, :add)
    fail.("message")
    send(pid, {:durable, :sync})
    {:ok, _etag} = ask(pid, {:durable, :get_etag})
    record(context, "store fails, the message :sync: runs on", runs_on.(pid, "message"))

    pid = start_server(context, a, Counter, "end")
    1 = ask(pid, :add)
    fail.("end")
    ended(context, "store fails, stop_for_rehome", pid, "end", &ask(&1, @rehome))
  end

  test "the message :sync stores a state that has changed, and get_etag after it names the new object", context do
    %{a: a, store: store} = context
    pid = start_server(context, a, Counter, "k")
    {:ok, first} = ask(pid, {:durable, :get_etag})
    SimulatedStore.reset_stats(store)
    send(pid, {:durable, :sync})
    {:ok, unchanged} = ask(pid, {:durable, :get_etag})
    puts = writes(context, "k", first)

    1 = ask(pid, :add)
    send(pid, {:durable, :sync})
    {:ok, changed} = ask(pid, {:durable, :get_etag})

    record(context, "message :sync", %{
      unchanged_state: {unchanged == first, puts},
      changed_state: {changed != first, changed == stored(context, "k").etag, count(context, "k")}
    })
  end

  test "terminate raises: the final write is not made", %{a: a} = context do
    pid = start_server(context, a, Troublesome, "k", %{count: 0})
    Troublesome.arm(a, "k", :terminate, :raise)
    1 = ask(pid, :add)
    ended(context, "terminate raises, stop_for_rehome", pid, "k", &ask(&1, @rehome))
  end

  test "init fails: errors of the starter and of a waiting caller, and what remains in the store", %{a: a} = context do
    for trouble <- [:raise, :stop, :ignore] do
      key = Atom.to_string(trouble)
      Troublesome.arm(a, key, :init, :hang)
      start = {Troublesome, key: key, initial_state: %{key: key, count: 0}}
      # DurableServer's own limit of five seconds may be too short for this test.
      patient = [local_only: true, timeout: 60_000]
      starter = Task.async(fn -> outcome(fn -> call(a, Host, :start_child, [context.sup, start, patient]) end) end)

      pid =
        wait_until(fn ->
          with [{_, pid, _, _} | _] <- call(a, Host, :which_children, [context.sup]), do: pid, else: (_ -> nil)
        end)

      wait_until(fn -> left(context, key) != :nothing end)
      ref = Process.monitor(pid)
      answered = make_ref()
      send(pid, {:"$gen_call", {self(), answered}, :get})
      Troublesome.arm(a, key, :init, trouble)

      assert_receive {:DOWN, ^ref, :process, ^pid, reason}
      refute_received {^answered, _}

      record(context, "init fails: #{trouble}", %{starter: await_task(starter), exit: reason, left: left(context, key)})
    end
  end

  test "init fails for a server that was stored before", %{a: a, b: b} = context do
    for trouble <- [:raise, :stop, :ignore] do
      key = Atom.to_string(trouble)
      start_server(context, a, Troublesome, key, %{count: 3})
      await_on(context, b, key, a)
      :ok = call(a, Host, :terminate_child, [context.sup, key])
      await_none(context, b, key)
      Troublesome.arm(b, key, :init, trouble)
      start = {Troublesome, key: key, initial_state: %{key: key, count: 0}}
      answer = outcome(fn -> call(b, Host, :ensure_started_child, [context.sup, start, [timeout: 60_000]]) end)
      record(context, "init of a stored server fails: #{trouble}", %{answer: answer, left: left(context, key)})

      Troublesome.disarm(b, key, :init)
      again = outcome(fn -> call(a, Host, :ensure_started_child, [context.sup, start, [timeout: 60_000]]) end)
      record(context, "init of a stored server failed (#{trouble}): asked for elsewhere", again)
    end
  end

  # Runs `fun` on the server of `key` and records the caller's result and the server's end.
  defp ended(context, row, fun, key \\ "k"),
    do: ended(context, row, start_server(context, context.a, Counter, key), key, fun)

  defp ended(context, row, pid, key, fun) do
    ref = Process.monitor(pid)
    caller = outcome(fn -> fun.(pid) end)
    assert_receive {:DOWN, ^ref, :process, ^pid, reason}
    record(context, row, %{caller: caller, exit: reason, left: left(context, key)})
  end

  # The caller's result: a value, or the exit reason without the call in it.
  defp outcome(fun) do
    {:returned, fun.()}
  catch
    :exit, {reason, {GenServer, :call, _args}} -> {:exited, reason}
    kind, reason -> {:raised, kind, reason}
  end

  defp left(context, key) do
    case SimulatedStore.peek(context.store, storage_key(context, key)) do
      nil ->
        :nothing

      %{body: %{meta: meta, state: state}} ->
        %{
          status: meta.status,
          owner: meta.node_str,
          reserved_for: meta.restart_attempt_node,
          count: state["count"],
          crashes: length(meta.crash_history)
        }
    end
  end

  defp count(context, key), do: stored(context, key).state["count"]

  defp writes(context, key, etag), do: if(stored(context, key).etag == etag, do: :none, else: :some)

  defp send_only(pid, message) do
    send(pid, message)
    :sent
  end

  defp kill_process(pid) do
    Process.exit(pid, :kill)
    :sent
  end
end
