# Everything that a BEAM can ask of a node that it dials. RUST is the name of that node.
rust = String.to_atom(System.fetch_env!("RUST"))

# Either side gives up a handshake that takes seconds, so connecting is repeated.
connect = fn connect -> Node.connect(rust) == true or connect.(connect) end
connect.(connect)
:pong = Node.ping(rust)
true = rust in Node.list(:hidden)
false = rust in Node.list()

reference = Process.monitor({:nobody, rust})

receive do
  {:DOWN, ^reference, :process, _object, :noproc} -> :ok
end

{:noproc, _call} =
  try do
    GenServer.call({:nobody, rust}, :hello, :infinity)
  catch
    :exit, reason -> reason
  end

{_pid, spawned} =
  :erlang.spawn_monitor(fn -> exit(:erpc.call(rust, :erlang, :node, [], :infinity)) end)

receive do
  {:DOWN, ^spawned, :process, _pid, {exception, _stack}}
  when is_tuple(exception) or is_map(exception) ->
    :ok
end

# Monitors and demonitors a process that exists, and sends messages that it does not handle.
present = Process.monitor({:durable_handoff, rust})
send({:durable_handoff, rust}, fn -> :a_local_fun end)
send({:durable_handoff, rust}, {:durable_handoff, 2, :keepalive, 1})

receive do
  {:durable_handoff, 1, :refuse, nil, {:version, 2, 1}} -> :ok
end

true = Process.demonitor(present, [:flush, :info])
:pong = Node.ping(rust)
IO.puts("all asked")
System.halt(0)
