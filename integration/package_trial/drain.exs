# Starts a second node, drains this one, and fails unless every server then runs there with its state.
{:ok, _pid, other} =
  :peer.start_link(%{
    name: :peer.random_name(),
    host: ~c"127.0.0.1",
    longnames: true,
    wait_boot: 120_000,
    args: [~c"-setcookie", Atom.to_charlist(Node.get_cookie())]
  })

:ok = :erpc.call(other, :code, :add_paths, [:code.get_path()])
{:ok, _apps} = :erpc.call(other, Application, :ensure_all_started, [:trial])

wait = fn wait, tries, done ->
  cond do
    done.() -> :ok
    tries == 0 -> raise "it did not become so in time"
    true -> Process.sleep(100) && wait.(wait, tries - 1, done)
  end
end

keys = for n <- 1..20, do: "counter/#{n}"

for key <- keys do
  child = {Trial.Counter, key: key, initial_state: %{count: 0}}
  {:ok, _} = DurableServer.Supervisor.start_child(Trial.Durable, child, local_only: true, timeout: 60_000)
  {:ok, 1} = DurableHandoff.call(Trial.Durable, key, :add)
end

wait.(wait, 300, fn -> match?({:ok, %{moves: moves}} when length(moves) == 20, DurableHandoff.plan(Trial.Durable)) end)
findings = DurableHandoff.Doctor.run()
IO.puts(DurableHandoff.Doctor.format(findings))
true = DurableHandoff.Doctor.healthy?(findings)
{:ok, %{total: 20, moved: 20} = report} = DurableHandoff.drain(Trial.Durable)

for key <- keys do
  # This node's registry may learn the new owner a moment later.
  there? = &match?({pid, _meta} when node(pid) == other, &1)
  wait.(wait, 300, fn -> there?.(DurableServer.Supervisor.lookup(Trial.Durable, key)) end)
  {:ok, 2} = DurableHandoff.call(Trial.Durable, key, :add)
end

IO.puts(report)
