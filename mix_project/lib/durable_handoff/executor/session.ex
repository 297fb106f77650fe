defmodule DurableHandoff.Executor.Session do
  @moduledoc false
  # The executor of one drain, and its replacement when it is lost.
  #
  # Guarantees:
  #
  #   * The engine in this VM runs from the first moment. While a Rust node decides, the engine follows: it
  #     validates and applies every order before the order is carried out, and every event. So it can take
  #     over at any point without replaying history.
  #   * An invalid order, such as a second attempt for a server that is under way, is rejected, and its sender
  #     is dropped for the rest of the drain.
  #   * The engine in this VM takes over when the Rust node is lost: at once when it refuses, is gone, cannot
  #     be sent to or sends an invalid message, and after two seconds without a message from it
  #     (`DurableHandoff.Executor.Link`). Orders that arrive later are ignored. A node that is lost before its
  #     first order is replaced by the next Rust node, unless two seconds have passed.
  #   * A rebalance ends instead when its Rust node is lost after an order: moves in flight end, and nothing else starts.
  #     Only that node knew what the other nodes move. The next rebalance is another decision.
  #   * The deadline, and a cancel, are enforced here.
  #   * The report counts every server once, with every executor.
  #
  #          ┌────────── poll: orders to carry out ◀──────────┐
  #   drain ─┤                                     engine in this VM ◀── follow ── orders of the Rust node
  #          └── events, views ─▶ engine in this VM           │
  #                          └▶ Link ─▶ Rust node ────────────┘
  #
  # A session is a value that the drain's process holds. That process passes on messages that it does not
  # know (`handle_message/3`).

  alias DurableHandoff.Executor.{Embedded, Link}
  alias DurableHandoff.{Log, RustNodes, Telemetry}

  @enforce_keys [:supervisor, :engine, :deadline_us]
  defstruct @enforce_keys ++
              [:link, :decided_by, :ended, rust_nodes: [], lost: [], orders: [], job: nil, ordered?: false]

  @type t :: %__MODULE__{}

  @doc "Starts the engine, and asks the first of `rust_nodes` to decide."
  @spec start(atom(), Link.job(), [RustNodes.rust_node()], now_us :: integer()) :: {:ok, t()} | {:error, term()}
  def start(supervisor, job, rust_nodes, now) do
    with {:ok, engine} <- Embedded.start(job.config, job.entries, job.view, now) do
      deadline_us = now + job.config.timeout_ms * 1_000
      session = %__MODULE__{supervisor: supervisor, engine: engine, deadline_us: deadline_us, rust_nodes: rust_nodes}
      {:ok, ask_next(%{session | job: job}, now)}
    end
  end

  @doc "The orders to carry out now, and the instant to poll again at the latest."
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

  @doc """
  Sends an event to the engines. An engine ignores events that no longer matter to it, such as the end of an
  attempt after the deadline.
  """
  @spec handle_event(t(), integer(), DurableHandoff.Native.event()) :: t()
  def handle_event(session, now, :cancel) do
    Embedded.event(session.engine, now, :cancel)
    dismiss(session)
  end

  def handle_event(session, now, event) do
    Embedded.event(session.engine, now, event)
    if session.link, do: %{session | link: Link.queue_event(session.link, event)}, else: session
  end

  @doc "Ends the drain within `span_us`, whatever is still in flight then. An earlier deadline stays."
  @spec end_within(t(), integer(), non_neg_integer()) :: t()
  def end_within(session, now, span_us) do
    Embedded.end_within(session.engine, now, span_us)
    %{session | deadline_us: min(session.deadline_us, now + span_us)}
  end

  @doc "Sends a new view of the cluster to the engines."
  @spec send_view(t(), integer(), map()) :: {:ok | {:error, term()}, t()}
  def send_view(session, now, view) do
    result = Embedded.view(session.engine, now, view)

    session =
      if session.link && result == :ok,
        do: %{session | link: Link.queue_view(session.link, view), job: session.job && %{session.job | view: view}},
        else: session

    {result, session}
  end

  @doc """
  Handles a message that the drain does not know: it may come from the Rust node, or say that the node is
  gone.
  """
  @spec handle_message(t(), integer(), term()) :: t()
  def handle_message(%{link: nil} = session, _now, _late_or_not_ours), do: session

  def handle_message(session, now, message) do
    case Link.handle_message(session.link, now, message) do
      {:ok, link, inputs} -> take(inputs, %{session | link: link}, now)
      {:lost, reason} -> lose(session, reason, now)
      :not_ours -> session
    end
  end

  @doc """
  The progress of the drain: the engine's counts. `waits_for`, why nothing is in flight although servers are left, is
  the Rust node's while that decides: only it knows the other drains.
  """
  @spec progress(t()) :: map()
  def progress(%{engine: engine, link: link}) do
    progress = engine |> Embedded.progress() |> Map.put_new(:waits_for, nil)
    if link && progress.in_flight == 0, do: %{progress | waits_for: link.waits_for}, else: progress
  end

  @doc """
  The result of each server when the drain is over, one byte each: 0 moved, else a code of `Native.reasons/0`.
  """
  @spec results(t()) :: binary()
  def results(%{engine: engine}), do: Embedded.results(engine)

  @doc """
  The engine's report, with `executor`, what decided at the end, and `executors_lost`, the Rust nodes that
  were lost, each with the reason. To be called once, because it ends the Rust node's part.
  """
  @spec report(t(), integer()) :: {map(), %{executor: :embedded | {:node, node()}, executors_lost: [{node(), term()}]}}
  def report(session, now) do
    session = dismiss(session)
    report = Embedded.report(session.engine, now)
    executor = if session.decided_by, do: {:node, session.decided_by}, else: :embedded
    {with_ending(report, session.ended), %{executor: executor, executors_lost: Enum.reverse(session.lost)}}
  end

  # The Rust node knows the other drains and rebalances, so its reasons are used for servers that were never tried, and
  # its balance.
  defp with_ending(report, nil), do: report

  # The measurement of the Rust node's limiter is used. If this release does not know how the drain ended, the
  # result of the engine in this VM is used.
  defp with_ending(report, %{last: last, ended: ended} = ending) do
    balance = if is_map_key(report, :balance), do: Map.take(ending, [:balance]), else: %{}
    # A move that ended while that report was on its way is not in it.
    left = if report.moved == ending.moved, do: Map.take(ending, [:left]), else: %{}

    report
    |> Map.merge(Map.take(ending, [:learnt]))
    |> Map.merge(left)
    |> Map.merge(balance)
    |> Map.merge(%{ended: ended || report.ended, concurrency: %{report.concurrency | last: last}})
  end

  defp take([], session, _now), do: session
  # The Rust node was lost because of an earlier order in the same message.
  defp take(_inputs, %{link: nil} = session, _now), do: session

  defp take([{:order, order} | rest], session, now) do
    case Embedded.follow(session.engine, now, order) do
      {:ok, order} -> take(rest, %{session | orders: [order | session.orders], ordered?: true}, now)
      {:error, _why} -> lose(session, {:invalid_order, order}, now)
    end
  end

  defp take([{:ended, report}], session, now) do
    cond do
      not adds_up?(report, Embedded.progress(session.engine)) ->
        lose(session, {:invalid_order, :finish}, now)

      Embedded.follow(session.engine, now, :finish) == {:ok, :finish} ->
        %{dismiss(session) | orders: [:finish | session.orders], ended: report}

      # The report crossed the end of an attempt whose server has to be released: the engine in this VM ends the drain.
      now >= session.deadline_us - Link.margin_us() ->
        dismiss(session)

      true ->
        lose(session, {:invalid_order, :finish}, now)
    end
  end

  # At the deadline a move may end while the report is on its way.
  defp adds_up?(report, progress) do
    report.total == progress.total and report.moved <= progress.moved and
      report.moved + Enum.sum(Map.values(report.left)) == report.total
  end

  defp ask_next(%{rust_nodes: []} = session, _now), do: %{session | job: nil}

  defp ask_next(%{rust_nodes: [{name, pid, _release} | others]} = session, now) do
    link = Link.open(pid, session.job, session.deadline_us, now)
    %{session | link: link, decided_by: name, rust_nodes: others}
  end

  # Ends the Rust node's part in this drain.
  defp dismiss(%{link: nil} = session), do: session

  defp dismiss(session) do
    Link.close(session.link)
    %{session | link: nil}
  end

  defp lose(%{decided_by: name} = session, reason, now) do
    shown = inspect(reason, limit: 10, printable_limit: 200)
    text = "the Rust node #{inspect(name)} does not coordinate this drain any more (#{shown})"
    Log.warning(:executor_lost, session.supervisor, text, node: name, reason: reason)

    Telemetry.fallback(session.supervisor, {:executor_lost, name, reason})
    session = %{dismiss(session) | lost: [{name, reason} | session.lost], decided_by: nil}
    if session.ordered?, do: Embedded.coordinator_lost(session.engine, now)
    if session.ordered? or reason in [:silent, :congested], do: session, else: ask_next(session, now)
  end
end
