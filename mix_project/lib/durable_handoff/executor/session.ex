defmodule DurableHandoff.Executor.Session do
  @moduledoc """
  Who decides in one drain, and what happens when that changes in the middle.

  Guarantees:

    * The engine in this VM is there from the first moment and knows everything. While a Rust node decides, it follows: it takes in
      every order before that is carried out, and every event. So it needs no start, no history and no guess to go on: it knows of each server
      where it is, how often it was tried and since when it is stopped, and it has had the deadline of the drain from the start.
    * An order that no engine would give, such as a second attempt for a server that is under way, is not
      carried out: the node that sends it is not asked any more.
    * The engine here takes over at once when the Rust node refuses, is gone, cannot be sent to or sends what cannot be understood, and after
      two seconds in which nothing was heard of it (`DurableHandoff.Executor.Link`). Orders that arrive after that are ignored. A node that is
      lost before it ordered anything is replaced by the next one that offers itself, unless it cost the two seconds.
    * The deadline, and a cancel, are enforced here.
    * The report counts every server once, with every executor.

  ```text
           ┌────────── poll: orders to carry out ◀──────────┐
    drain ─┤                                     engine in this VM ◀── follow ── orders of the Rust node
           └── event, view ─▶ engine in this VM             │
                           └▶ Link ─▶ Rust node ────────────┘
  ```

  Belongs to the process of the drain, which hands it what it does not know itself (`message/3`).
  """

  require Logger

  alias DurableHandoff.Executor.{Embedded, Link}
  alias DurableHandoff.Telemetry

  @enforce_keys [:supervisor, :engine, :deadline_us]
  defstruct @enforce_keys ++
              [:link, :decided_by, :ended, candidates: [], lost: [], orders: [], job: nil, ordered?: false]

  @typedoc "What a Rust node is told at the start; `config` and `entries` as for the engine here."
  @type job :: %{
          supervisor: String.t(),
          storage: String.t(),
          modules: [String.t()],
          config: map(),
          entries: [tuple()],
          view: map()
        }
  @type t :: %__MODULE__{}

  @doc "Starts the engine, and asks the first of `candidates` to decide."
  @spec start(atom(), job(), [DurableHandoff.Agent.offered()], now_us :: integer()) :: {:ok, t()} | {:error, term()}
  def start(supervisor, job, candidates, now) do
    with {:ok, engine} <- Embedded.start(job.config, job.entries, job.view, now) do
      deadline_us = now + job.config.timeout_ms * 1_000
      session = %__MODULE__{supervisor: supervisor, engine: engine, deadline_us: deadline_us, candidates: candidates}
      {:ok, ask_next(%{session | job: job}, now)}
    end
  end

  @doc "What is to be done now, and when to ask again at the latest."
  @spec poll(t(), integer()) :: {[DurableHandoff.Native.action()], :infinity | integer(), t()}
  def poll(%{link: nil} = session, now) do
    {:ok, orders, wake} = Embedded.poll(session.engine, now)
    {Enum.reverse(session.orders, orders), wake, %{session | orders: []}}
  end

  def poll(%{deadline_us: deadline} = session, now) when now >= deadline, do: session |> dismiss() |> poll(now)

  def poll(session, now) do
    case Link.flush(session.link, now) do
      {:ok, link, wake} ->
        {Enum.reverse(session.orders), min(wake, session.deadline_us), %{session | link: link, orders: []}}

      {:lost, reason} ->
        session |> lose(reason, now) |> poll(now)
    end
  end

  @doc "Something happened. An engine refuses what no longer concerns it, such as the end of an attempt after the deadline."
  @spec event(t(), integer(), DurableHandoff.Native.event()) :: t()
  def event(session, now, :cancel) do
    Embedded.event(session.engine, now, :cancel)
    dismiss(session)
  end

  def event(session, now, event) do
    Embedded.event(session.engine, now, event)
    if session.link, do: %{session | link: Link.event(session.link, event)}, else: session
  end

  @doc "The cluster was looked at anew."
  @spec view(t(), integer(), map()) :: {:ok | {:error, term()}, t()}
  def view(session, now, view) do
    result = Embedded.view(session.engine, now, view)
    session = if session.link && result == :ok, do: %{session | link: Link.view(session.link, view)}, else: session
    {result, session}
  end

  @doc "A message that the drain does not know: perhaps the Rust node's, perhaps its end."
  @spec message(t(), integer(), term()) :: t()
  def message(%{link: nil} = session, _now, _late_or_not_ours), do: session

  def message(session, now, message) do
    case Link.message(session.link, now, message) do
      {:ok, link, inputs} -> take(inputs, %{session | link: link}, now)
      {:lost, reason} -> lose(session, reason, now)
      :not_ours -> session
    end
  end

  @doc "How far the drain is."
  @spec progress(t()) :: map()
  def progress(%{engine: engine}), do: Embedded.progress(engine)

  @doc "What became of each server, one byte each, when the drain is over: 0 moved, else why not (`Native.reasons/0`)."
  @spec results(t()) :: binary()
  def results(%{engine: engine}), do: Embedded.results(engine)

  @doc """
  The engine's report, and who decided: `executor` at the end, `executors_lost` the Rust nodes that were lost, each with the
  reason. To be called once: the Rust node is told that nothing more comes.
  """
  @spec report(t(), integer()) :: {map(), %{executor: :embedded | {:node, node()}, executors_lost: [{node(), term()}]}}
  def report(session, now) do
    session = dismiss(session)
    report = Embedded.report(session.engine, now)
    executor = if session.decided_by, do: {:node, session.decided_by}, else: :embedded
    {with_ending(report, session.ended), %{executor: executor, executors_lost: Enum.reverse(session.lost)}}
  end

  # Why servers stayed that were never tried is for who decided that to say: it knows the other drains.
  defp with_ending(report, nil), do: report

  defp with_ending(report, %{left: left, ended: ended, last: last}),
    do: %{report | left: left, ended: ended, concurrency: %{report.concurrency | last: last}}

  defp take([], session, _now), do: session
  # Lost on the way: what else it said is as late as what comes after.
  defp take(_inputs, %{link: nil} = session, _now), do: session

  defp take([{:order, order} | rest], session, now) do
    case Embedded.follow(session.engine, now, order) do
      {:ok, order} -> take(rest, %{session | orders: [order | session.orders], ordered?: true}, now)
      {:error, _why} -> lose(session, {:nonsense, order}, now)
    end
  end

  defp take([{:ended, report}], session, now) do
    progress = Embedded.progress(session.engine)

    with true <- adds_up?(report, progress), {:ok, :finish} <- Embedded.follow(session.engine, now, :finish) do
      %{dismiss(session) | orders: [:finish | session.orders], ended: report}
    else
      _not_over -> lose(session, {:nonsense, :finish}, now)
    end
  end

  defp adds_up?(report, progress) do
    report.total == progress.total and report.moved == progress.moved and
      report.moved + Enum.sum(Map.values(report.left)) == report.total
  end

  defp ask_next(%{candidates: []} = session, _now), do: %{session | job: nil}

  defp ask_next(%{candidates: [{name, pid, _release} | others]} = session, now) do
    link = Link.open(pid, session.job, session.deadline_us, now)
    %{session | link: link, decided_by: name, candidates: others}
  end

  # It has done its part: the rest of this drain is not for it to decide.
  defp dismiss(%{link: nil} = session), do: session

  defp dismiss(session) do
    Link.close(session.link)
    %{session | link: nil}
  end

  defp lose(%{decided_by: name} = session, reason, now) do
    Logger.warning(
      "[durable_handoff] #{inspect(session.supervisor)}: the Rust node #{inspect(name)} does not coordinate this drain any more " <>
        "(#{inspect(reason, limit: 10, printable_limit: 200)})"
    )

    Telemetry.fallback(session.supervisor, {:executor_lost, name, reason})
    session = %{dismiss(session) | lost: [{name, reason} | session.lost], decided_by: nil}
    if session.ordered? or reason in [:silent, :congested], do: session, else: ask_next(session, now)
  end
end
