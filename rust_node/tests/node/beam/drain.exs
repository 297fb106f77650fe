# A BEAM node with the library's side of the protocol: the agent, and one drain. DRAIN_COUNT is the number of
# servers. DRAIN_MODE "run" moves each server as ordered, "hold" only keeps the drain open. It waits for
# DRAIN_NODES announcements (default 1) and drains through the first Rust node; when that one is gone, through
# the next.
defmodule Drain do
  @tag :durable_handoff

  def run do
    Process.register(self(), DurableHandoff.Agent)
    IO.puts("up")
    nodes = welcome([], String.to_integer(System.get_env("DRAIN_NODES", "1")))
    Enum.each(nodes, &Process.monitor/1)
    IO.puts("welcomed #{Enum.map_join(nodes, " ", &node/1)}")
    drain(nodes, 1, System.fetch_env!("DRAIN_MODE"))
  end

  defp drain([rust | rest], id, mode) do
    count = String.to_integer(System.fetch_env!("DRAIN_COUNT"))
    state = %{rust: rust, rest: rest, id: id, mode: mode, count: count, moved: 0, first: true}
    tell(state, [:drain_open, id, self(), spec(count)])
    Process.send_after(self(), {:keepalive, id}, 500)
    loop(state)
  end

  defp welcome(known, 0), do: Enum.reverse(known)

  defp welcome(known, missing) do
    receive do
      {@tag, 1, :announce, pid, %{accepting: true}} ->
        send(pid, {@tag, 1, :welcome, self(), %{release: "0.0.0"}})
        if pid in known, do: welcome(known, missing), else: welcome([pid | known], missing - 1)
    end
  end

  # A single receive loop, so that keepalives are sent whatever message it waits for.
  defp loop(%{id: id} = state) do
    receive do
      {@tag, 1, :opened, ^id} ->
        load(state)
        loop(state)

      {@tag, 1, :started, ^id} ->
        loop(state)

      {@tag, 1, :orders, ^id, orders} ->
        orders |> Enum.reduce(state, &order/2) |> loop()

      {:moved, ^id, server, attempt} ->
        tell(state, [:events, id, [{:finished, server, attempt, {:moved, nil}, 5_000}]])
        loop(%{state | moved: state.moved + 1})

      {:keepalive, ^id} ->
        Process.send_after(self(), {:keepalive, id}, 500)
        tell(state, [:keepalive, id])
        loop(state)

      {@tag, 1, :report, ^id, report} ->
        tell(state, [:drain_close, id])

        done(
          "report moved=#{report.moved} of=#{report.total} here=#{state.moved} targets=#{length(report.targets)}"
        )

      {@tag, 1, :progress, ^id, %{total: _}} ->
        loop(state)

      # This node was paused for longer than a drain may be silent. The test is not about that, so it starts
      # again.
      {@tag, 1, :refuse, ^id, :silent} ->
        IO.puts("silent")
        drain([state.rust | state.rest], id + 1, state.mode)

      {@tag, 1, :refuse, refused, reason} when refused in [id, nil] ->
        done("refused #{inspect(reason)}")

      {:DOWN, _monitor, :process, pid, reason} when pid == state.rust ->
        if state.rest == [], do: done("down #{inspect(reason)}")
        IO.puts("down #{inspect(reason)}")
        drain(state.rest, id + 1, "run")
    end
  end

  defp load(%{id: id} = state) do
    for chunk <- Enum.chunk_every(0..(state.count - 1), 5_000),
        do: tell(state, [:servers, id, hd(chunk), :binary.copy(<<0::96>>, length(chunk))])

    tell(state, [:view, id, 1, 1, System.system_time(:millisecond), nodes()])
    tell(state, [:drain_start, id, 600_000])
  end

  defp order({:start, server, target, attempt, timeout_ms}, state)
       when is_binary(target) and timeout_ms > 0 do
    if state.first, do: IO.puts("started at #{node(state.rust)}")
    if state.mode == "run", do: send(self(), {:moved, state.id, server, attempt})
    %{state | first: false}
  end

  defp order(:finish, state), do: state

  defp tell(state, fields), do: send({@tag, node(state.rust)}, List.to_tuple([@tag, 1 | fields]))

  defp done(text) do
    IO.puts(text)
    System.halt(0)
  end

  defp nodes do
    for name <- ["t1@h", "t2@h"] do
      %{
        name: name,
        stamp_ms: System.system_time(:millisecond),
        started_at_ms: nil,
        generation: nil,
        servers: 0,
        region: nil,
        draining: false,
        connected: true,
        capacity: [],
        resources: nil,
        env: []
      }
    end
  end

  defp spec(count) do
    config = %{
      max_concurrency: 50,
      concurrency: :adaptive,
      max_concurrency_per_target: nil,
      # A time limit that no test reaches.
      timeout_ms: 600_000,
      attempt_timeout_ms: 600_000,
      max_attempts: 3,
      max_consecutive_failures: 10,
      max_failure_ratio: 0.5,
      wait_for_target_ms: 0,
      wait_for_lost_ms: 0,
      sticky: :gated,
      prefer: :none,
      source: %{name: Atom.to_string(node()), started_at_ms: nil, generation: nil, region: nil},
      stickies: [[]],
      modules: 1,
      future_skew_ms: 5_000,
      max_age_ms: 600_000
    }

    %{supervisor: "Test", storage: "test", count: count, modules: ["M"], config: config}
  end
end

Drain.run()
