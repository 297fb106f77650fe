# An agent for the tests of operators' commands. AGENT says how it answers a drain_request:
#   done, left two steps, then a report with no or some servers left; to a dry run, as earlier releases answer
#   plan a plan refuse it does not know the supervisor hold steps without end exit, vanish one step, then the
#   agent or the whole node is gone moves it cordons, moves and rebalances old its release knows none of these
#   three requests several, bare it has two supervisors, or none; in every other mode MyApp.Durable silent, full it
#   does not describe itself, or has too many requests; none there is no agent
defmodule Operator do
  @tag :durable_handoff

  def run("none") do
    IO.puts("up")
    Process.sleep(:infinity)
  end

  def run(mode) do
    Process.register(self(), DurableHandoff.Agent)
    IO.puts("up")
    serve(mode)
  end

  defp serve("silent"), do: Process.sleep(:infinity)

  defp serve("full") do
    receive do
      {@tag, 1, :describe, request, from} -> send(from, {@tag, 1, :refuse, request, {:full, "requests", 32}})
    end

    serve("full")
  end

  defp serve(mode) do
    receive do
      {@tag, 1, :describe, request, from} ->
        info = %{release: "9.9.9", now_ms: 60_000, supervisors: for(name <- supervisors(mode), do: supervisor(name, mode))}
        send(from, {@tag, 1, :description, request, info})
        serve(mode)

      {@tag, 1, :drain_request, request, from, what} ->
        IO.puts("asked #{what.supervisor} #{inspect(what.timeout_ms)} #{what.dry_run}")
        answer(mode, request, from)

      {@tag, 1, kind, request, from, what} ->
        IO.puts("asked #{kind} #{inspect(Enum.sort(what))}")
        if mode == "moves", do: answer(kind, what, request, from)
        serve(mode)
    end
  end

  defp answer(:cordon_request, what, request, from) do
    send(from, {@tag, 1, :cordon_done, request, %{supervisors: [what.supervisor || "MyApp.Durable"]}})
  end

  defp answer(:move_request, %{key: "none"}, request, from) do
    send(from, {@tag, 1, :refuse, request, {:invalid, ["no server none, did you mean nine?"]}})
  end

  defp answer(:move_request, what, request, from) do
    step(request, from, 0)
    done = %{from: Atom.to_string(node()), to: what.to || "best@h", gap_us: 41_000, attempts: 2}
    send(from, {@tag, 1, :move_done, request, done})
  end

  # OTHER is the node that gets the excess.
  defp answer(:rebalance_request, what, request, from) do
    case {System.get_env("OTHER"), what.dry_run} do
      {nil, _any} ->
        send(from, {@tag, 1, :refuse, request, {:invalid, ["a node drains"]}})

      {other, true} ->
        rest = %{total: 20, left: %{}, timeout_ms: 30_000, estimate_us: nil, out_of_reach: []}
        send(from, {@tag, 1, :plan, request, Map.merge(rest, %{moves: 5, targets: [{other, 5}]})})

      {other, false} ->
        step(request, from, 3)
        report = %{report(5, %{kept: 14, no_target: 1}) | targets: [{other, 5}]}
        send(from, {@tag, 1, :drain_done, request, report})
    end
  end

  defp supervisors("several"), do: ["A", "B"]
  defp supervisors("bare"), do: []
  defp supervisors(_mode), do: ["MyApp.Durable"]

  defp supervisor(name, mode) do
    info = %{name: name, generation: "1", started_at_ms: 0, servers: 20, draining: false}
    if mode == "old", do: info, else: Map.put(info, :cordoned, false)
  end

  defp answer("refuse", request, from) do
    send(from, {@tag, 1, :refuse, request, {:invalid, ["supervisor: there is no Nope"]}})
    wait()
  end

  defp answer("hold", request, from) do
    step(request, from, 3)
    IO.puts("stepped at #{:os.system_time(:millisecond)}")

    receive do
    after
      100 -> answer("hold", request, from)
    end
  end

  defp answer("exit", request, from) do
    step(request, from, 3)
    exit(:shutdown)
  end

  defp answer("vanish", request, from) do
    step(request, from, 3)
    System.halt(0)
  end

  defp answer("plan", request, from) do
    plan = %{
      total: 20,
      moves: 18,
      left: %{no_target: 2},
      targets: [{"b@h", 18}],
      timeout_ms: 30_000,
      estimate_us: 1_500_000,
      out_of_reach: []
    }

    send(from, {@tag, 1, :plan, request, plan})
    wait()
  end

  defp answer(mode, request, from) when mode in ["done", "left"] do
    # An answer with the number of another request, which the command must ignore.
    send(from, {@tag, 1, :drain_done, request + 1, report(0, %{})})
    step(request, from, 3)
    step(request, from, 20)
    left = if mode == "left", do: %{no_target: 2, gone: 1}, else: %{}
    send(from, {@tag, 1, :drain_done, request, report(20 - Enum.sum(Map.values(left)), left)})
    wait()
  end

  defp step(request, from, moved) do
    progress = %{
      total: 20,
      pending: 20 - moved,
      in_flight: 0,
      displaced: 0,
      stopping: 0,
      moved: moved,
      left: 0,
      failures: 0,
      retried: 0,
      limit: 8,
      finished: moved == 20
    }

    send(from, {@tag, 1, :drain_step, request, progress})
  end

  defp report(moved, left) do
    %{
      total: 20,
      moved: moved,
      left: left,
      retried: 0,
      gap_us: %{count: moved, p50: 35_000, p90: 40_000, p99: 41_000, max: 42_000},
      duration_us: 1_500_000,
      targets: [{"b@h", moved}],
      concurrency: %{last: 8, highest: 8},
      attempts: 20,
      failures: 0,
      ended: :done
    }
  end

  defp wait, do: Process.sleep(:infinity)
end

# A handshake that takes seconds is given up, so connecting is repeated until the other node lists this one.
connect = fn connect, other -> Node.ping(other) == :pong or connect.(connect, other) end
if other = System.get_env("OTHER"), do: connect.(connect, String.to_atom(other))
# The agent is a process of its own, so that it can end without the node.
spawn(fn -> Operator.run(System.fetch_env!("AGENT")) end)
Process.sleep(:infinity)
