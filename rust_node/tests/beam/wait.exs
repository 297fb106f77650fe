# A node that echoes what it is sent, connects to OTHER if that is given, and answers an operator.
Process.register(self(), DurableHandoff.Agent)

with other when is_binary(other) <- System.get_env("OTHER"),
     do: true = Node.connect(String.to_atom(other))

:net_kernel.monitor_nodes(true, node_type: :all)
IO.puts("up")

loop = fn loop ->
  receive do
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

  loop.(loop)
end

loop.(loop)
