# A node that echoes messages, connects to OTHER if that is given, and answers operators. When it was paused,
# it reports that, with the number of milliseconds.
Process.register(self(), DurableHandoff.Agent)

with other when is_binary(other) <- System.get_env("OTHER") do
  # A handshake that takes seconds is given up, so connecting is repeated until the other node lists this one.
  connect = fn connect, other -> Node.ping(other) == :pong or connect.(connect, other) end
  connect.(connect, String.to_atom(other))
end

:net_kernel.monitor_nodes(true, node_type: :all)
IO.puts("up")

loop = fn loop, last ->
  message =
    receive do
      message -> message
    after
      100 -> nil
    end

  now = System.monotonic_time(:millisecond)
  # Reported before any consequences of the pause.
  if now - last > 1_000, do: IO.puts("held #{now - last}")

  case message do
    {:echo, from, term} ->
      send(from, term)

    {:nodedown, node, _info} ->
      IO.puts("nodedown #{node}")

    {:durable_handoff, 1, :describe, request, from} ->
      supervisor = %{
        name: "MyApp.Durable",
        generation: "1.2",
        started_at_ms: 0,
        servers: 7,
        draining: true
      }

      send(
        from,
        {:durable_handoff, 1, :description, request,
         %{release: "0.1.0", now_ms: 61_000, supervisors: [supervisor]}}
      )

    _other ->
      :ok
  end

  loop.(loop, now)
end

loop.(loop, System.monotonic_time(:millisecond))
