defmodule DurableHandoff.Drain.Storing do
  @moduledoc """
  Has the servers of a drain store their state while they go on running, before any is moved.

  A node may be killed at any moment after SIGTERM. Without a drain its servers are stopped one after the
  other, and each stores its state then. So a drain stores first: at any moment, at least as many states are
  in storage as there would be without it. A server whose state is unchanged writes nothing, so where servers
  are synced this takes milliseconds.

  Guarantees:

    * Asks as many servers at a time as the graceful shutdown stops.
    * Never waits for one server: once all have been asked, those that take more than twice as long as any
      other (and 500 ms) go on by themselves.
    * While the store is out it asks again, at most every second, until its time is over.
    * Servers whose write fails while the store takes others are tried again by their own attempt.

  The process that starts it gets `{DurableHandoff.Drain.Storing, pid}` when it is done. It ends with that process.
  """

  alias DurableHandoff.{Clock, Host}
  alias DurableHandoff.Host.Sync

  @enforce_keys [:supervisor, :watch, :timeout_ms, :until_us, :concurrency, :counters]
  defstruct @enforce_keys

  @type t :: %{pid: pid(), monitor: reference(), counters: :counters.counters_ref()}
  @type counts :: %{stored: non_neg_integer(), unchanged: non_neg_integer(), failed: non_neg_integer()}

  @least_patience_ms 500
  @pauses_ms [250, 500, 1_000]
  @probe_ms 1_000

  @stored 1
  @unchanged 2
  @failed 3

  @doc """
  Starts for `servers`, in that order. One server may take `timeout_ms`; no server is asked again after
  `until_us`.
  """
  @spec start(Host.name(), [Host.server()], Sync.watch(), timeout_ms :: pos_integer(), until_us :: integer()) :: t()
  def start(supervisor, servers, watch, timeout_ms, until_us) do
    drain = self()

    storing = %__MODULE__{
      supervisor: supervisor,
      watch: watch,
      timeout_ms: timeout_ms,
      until_us: until_us,
      concurrency: Host.graceful_concurrency(supervisor),
      counters: :counters.new(3, [])
    }

    {pid, monitor} =
      :proc_lib.spawn_opt(
        fn ->
          gone = Process.monitor(drain)
          run(storing, servers, gone, @pauses_ms)
          send(drain, {__MODULE__, self()})
        end,
        [:monitor]
      )

    %{pid: pid, monitor: monitor, counters: storing.counters}
  end

  @doc """
  How far it is: servers that have written their state, those that had nothing to write, and those whose write
  failed last.
  """
  @spec counts(t()) :: counts()
  def counts(%{counters: counters}) do
    [stored, unchanged, failed] = for index <- [@stored, @unchanged, @failed], do: :counters.get(counters, index)
    %{stored: stored, unchanged: unchanged, failed: failed}
  end

  defp run(storing, servers, gone, pauses_ms) do
    failed = pass(storing, servers, gone)
    :counters.put(storing.counters, @failed, length(failed))

    cond do
      failed == [] or Clock.now_us() >= storing.until_us -> :ok
      Sync.store_takes_writes?(storing.supervisor, @probe_ms) -> last_pass(storing, failed, gone)
      true -> again(storing, failed, gone, pauses_ms)
    end
  end

  # The store works, so a second failure is the server's own.
  defp last_pass(storing, servers, gone) do
    failed = pass(storing, servers, gone)
    :counters.put(storing.counters, @failed, length(failed))
  end

  defp again(storing, servers, gone, [pause_ms | later]) do
    receive do
      {:DOWN, ^gone, :process, _drain, _reason} -> exit(:normal)
    after
      pause_ms -> run(storing, servers, gone, if(later == [], do: [pause_ms], else: later))
    end
  end

  # Asks every server once; those whose write failed. A worker takes the next server when it has its answer.
  defp pass(storing, servers, gone) do
    queue = List.to_tuple(servers)
    job = %{queue: queue, next: :atomics.new(1, []), owner: self(), ref: make_ref()}
    for _ <- 1..min(storing.concurrency, tuple_size(queue))//1, do: spawn_link(fn -> work(storing, job) end)
    collect(storing, job, gone, %{open: tuple_size(queue), longest_us: 0, failed: []})
  end

  defp work(%{until_us: until_us} = storing, %{queue: queue, owner: owner, ref: ref} = job) do
    index = :atomics.add_get(job.next, 1, 1)
    started = Clock.now_us()

    if index <= tuple_size(queue) and started < until_us do
      server = elem(queue, index - 1)
      result = Sync.run(server.pid, storing.watch, storing.timeout_ms)
      send(owner, {ref, server, result, Clock.now_us() - started})
      work(storing, job)
    end
  end

  defp collect(_storing, _job, _gone, %{open: 0, failed: failed}), do: Enum.reverse(failed)

  defp collect(storing, %{ref: ref} = job, gone, pass) do
    receive do
      {^ref, server, result, took_us} ->
        count(storing.counters, result)
        failed = if match?({:failed, _cause}, result), do: [server | pass.failed], else: pass.failed
        pass = %{pass | open: pass.open - 1, longest_us: max(pass.longest_us, took_us), failed: failed}
        collect(storing, job, gone, pass)

      {:DOWN, ^gone, :process, _drain, _reason} ->
        # Takes the workers with it.
        exit(:shutdown)
    after
      max(@least_patience_ms, div(2 * pass.longest_us, 1_000)) ->
        if all_asked?(job) or Clock.now_us() >= storing.until_us,
          do: Enum.reverse(pass.failed),
          else: collect(storing, job, gone, pass)
    end
  end

  defp all_asked?(%{queue: queue, next: next}), do: :atomics.get(next, 1) > tuple_size(queue)

  defp count(counters, :stored), do: :counters.add(counters, @stored, 1)
  defp count(counters, :unchanged), do: :counters.add(counters, @unchanged, 1)
  defp count(_counters, _failed_ended_or_busy), do: :ok
end
