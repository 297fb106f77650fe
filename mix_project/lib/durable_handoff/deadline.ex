defmodule DurableHandoff.Deadline do
  @moduledoc false
  # Divides the time of a shutdown. No other module does that: all others are given a deadline.
  #
  # Pure: instants in, instants out. Instants are microseconds of the engine's clock, spans are milliseconds.
  #
  #  SIGTERM, prepare_stop/0                                                        the platform kills the node
  #  noted_us                                                             kill_us = noted_us + shutdown_budget_ms
  #     │                                                                                                  │
  #     ▼                                                                                                  ▼
  #     ├── children that stop before us ──┬─────────── drain, at most timeout_ms ───────────┬── graceful ─────┤
  #     │            passed_ms             │                                                 │   graceful_ms   │
  #                                        ▼                                                 ▼
  #                                     begin_us                                           end_us
  #     ├── states are stored ─────────────┼── until each was asked ──┐                      │
  #                                        ├─ mark ≤ 1/2 ─┤           ▼                      │
  #                                        │                counts ≤ 1/20, policy ≤ 1/4      │
  #                                        │                          ├─ attempts ─┬─ offer ─┤
  #                                        │                                       ▼   3/4   │
  #                                        │                                 settle_us   ▼   │
  #                                        │                                         joined_us
  #
  #   * `store_us`: half-way between `begin_us` and `settle_us`. Until then the drain waits for states whose
  #     write failed or is slow. After it, the drain waits only for servers that have not been asked yet.
  #   * `settle_us`: the engine starts nothing more, and attempts in flight have settled. It is before
  #     `end_us` by a tenth of the drain, at most 500 ms.
  #   * `joined_us`: a running drain that a shutdown has joined, and that would end later, is told to end at `settle_us`.
  #     At this time its engine is done, whatever is still in flight. It is before `end_us` by half of that time.
  #   * `end_us`: the Drainer continues without the drain, even if the drain has not ended. After a request it waits a
  #     second longer for the report.
  #
  # ## What a drain of a shutdown gets
  #
  # Without `shutdown_budget_ms` it gets `timeout_ms`. With one it gets what is left of the budget after
  # `passed_ms`, less the time that the graceful shutdown needs after it, and at most `timeout_ms`. The
  # graceful shutdown keeps its whole `graceful_shutdown_total_timeout_ms` where the budget was made for both
  # (it is at least the sum of the two). A smaller budget cannot hold that: there the graceful shutdown keeps
  # what storing the servers of this node is expected to take (`graceful_need_ms/3`). A drain gets an eighth
  # of what is left in any case, so that the most important servers move.

  @enforce_keys [:begin_us, :end_us]
  defstruct @enforce_keys ++ [:kill_us, :cut]

  @typedoc """
  `kill_us`: when the platform kills the node, nil if unknown. `cut`: nil, or why the drain has less time than
  `timeout_ms`; its values are milliseconds, and `passed_ms` is the time since SIGTERM or `prepare_stop/0`.
  """
  @type t :: %__MODULE__{
          begin_us: integer(),
          end_us: integer(),
          kill_us: nil | integer(),
          cut:
            nil
            | %{
                to_ms: non_neg_integer(),
                timeout_ms: pos_integer(),
                budget_ms: pos_integer(),
                passed_ms: non_neg_integer(),
                graceful_ms: non_neg_integer()
              }
        }

  @typedoc """
  The facts by which a shutdown is divided. `noted_us`: when it became known that the node stops; nil means
  now. `graceful_ms`: DurableServer's limit of its graceful shutdown. `need_ms`: the time that the graceful
  shutdown is expected to take.
  """
  @type shutdown :: %{
          timeout_ms: pos_integer(),
          budget_ms: nil | pos_integer(),
          noted_us: nil | integer(),
          graceful_ms: non_neg_integer(),
          need_ms: non_neg_integer()
        }

  # The end of the drain is kept for attempts in flight to settle and for offers of leftovers.
  @settle_share 10
  @longest_settle_ms 500
  # A drain gets at least this part of the remaining time.
  @least_share 8
  # Marking writes one heartbeat.
  @longest_mark_ms 5_000
  # A drain or shutdown waits for moves in flight of what it ends, a shutdown for at most this part of its drain.
  @longest_let_go_ms 1_000
  @let_go_share 4
  # A requested drain that has not reported by then hangs.
  @longest_report_ms 1_000
  # Nodes normally answer in a millisecond. A node that hangs delays the drain once, by this time.
  @longest_ask_ms 500
  # The graceful shutdown may take this many times its expected time, and at least the second number.
  @graceful_factor 2
  @least_graceful_ms 500
  # The time that the Drainer needs to answer.
  @answer_ms 50
  # terminate/2 returns when the drain ends. The supervisor's shutdown limits only have to be longer.
  @margin_ms 5_000

  @doc "The deadline of a drain that begins at `begin_us` and may take `timeout_ms`."
  @spec drain(integer(), pos_integer()) :: t()
  def drain(begin_us, timeout_ms), do: %__MODULE__{begin_us: begin_us, end_us: begin_us + timeout_ms * 1_000}

  @doc """
  The deadline of a shutdown's drain that begins at `begin_us`.

      iex> alias DurableHandoff.Deadline
      iex> about = %{timeout_ms: 30_000, budget_ms: 95_000, noted_us: 0, graceful_ms: 55_000, need_ms: 1_000}
      iex> Deadline.shutdown(30_000_000, about).end_us
      40_000_000
  """
  @spec shutdown(integer(), shutdown()) :: t()
  def shutdown(begin_us, %{budget_ms: nil, timeout_ms: timeout_ms}), do: drain(begin_us, timeout_ms)

  def shutdown(begin_us, %{budget_ms: budget_ms, timeout_ms: timeout_ms} = about) do
    noted_us = noted_us(begin_us, about)
    kill_us = noted_us + budget_ms * 1_000
    left_ms = div(kill_us - begin_us, 1_000)
    graceful_ms = kept_for_graceful_ms(about)
    drain_ms = max(left_ms - graceful_ms, div(left_ms, @least_share))

    if drain_ms >= timeout_ms do
      %{drain(begin_us, timeout_ms) | kill_us: kill_us}
    else
      passed_ms = div(begin_us - noted_us, 1_000)
      cut = %{to_ms: drain_ms, timeout_ms: timeout_ms, budget_ms: budget_ms, passed_ms: passed_ms}
      cut = Map.put(cut, :graceful_ms, graceful_ms)
      %__MODULE__{begin_us: begin_us, end_us: begin_us + drain_ms * 1_000, kill_us: kill_us, cut: cut}
    end
  end

  # The node has outlived its budget, so it was marked long before the platform began to count. So the budget
  # starts now.
  defp noted_us(begin_us, %{noted_us: noted_us, budget_ms: budget_ms}) do
    if noted_us != nil and noted_us <= begin_us and noted_us + budget_ms * 1_000 > begin_us,
      do: noted_us,
      else: begin_us
  end

  defp kept_for_graceful_ms(%{timeout_ms: timeout_ms, budget_ms: budget_ms, graceful_ms: graceful_ms} = about) do
    if timeout_ms + graceful_ms <= budget_ms, do: graceful_ms, else: min(about.need_ms, graceful_ms)
  end

  @doc """
  What the graceful shutdown of `servers` servers is expected to take, in milliseconds: it stops `at_a_time` of
  them at a time, each with one write of `write_ms`. Twice that, for what their `terminate/2` does.

      iex> DurableHandoff.Deadline.graceful_need_ms(5_000, 50, 10)
      2_000
      iex> DurableHandoff.Deadline.graceful_need_ms(5_000, 5, 10)
      20_000
  """
  @spec graceful_need_ms(non_neg_integer(), at_a_time :: pos_integer(), number()) :: non_neg_integer()
  def graceful_need_ms(servers, at_a_time, write_ms) do
    rounds = div(servers + at_a_time - 1, at_a_time)
    max(ceil(@graceful_factor * rounds * write_ms), @least_graceful_ms)
  end

  @doc """
  When the shutdown starts its drain although moves of the rebalance or drain that it ended are still in flight.

      iex> DurableHandoff.Deadline.let_go_us(DurableHandoff.Deadline.drain(0, 1_000))
      250_000
  """
  @spec let_go_us(t()) :: integer()
  def let_go_us(deadline),
    do: deadline.begin_us + min(share_ms(deadline, @let_go_share), @longest_let_go_ms) * 1_000

  @doc "How long a requested drain waits for the moves in flight of the rebalance that it ended."
  @spec let_go_ms() :: pos_integer()
  def let_go_ms, do: @longest_let_go_ms

  @doc "The deadline of a drain that runs already, and ends by that of the shutdown `other` now."
  @spec end_by(t(), t()) :: t()
  def end_by(deadline, other), do: %{deadline | end_us: min(deadline.end_us, other.end_us)}

  @doc "When the Drainer goes on without a drain that has not ended: a shutdown waits no longer than its deadline."
  @spec give_up_us(t(), :shutdown | :request) :: integer()
  def give_up_us(deadline, :shutdown), do: deadline.end_us
  def give_up_us(deadline, :request), do: deadline.end_us + @longest_report_ms * 1_000

  @doc "When the engine of a drain that a shutdown has joined has to be done. It is told to end at `settle_us/1`."
  @spec joined_us(t()) :: integer()
  def joined_us(deadline), do: deadline.end_us - div(settle_ms(deadline) * 1_000, 2)

  @doc """
  Until when moves wait for servers that have been asked to store their state: half of the engine's time.
  """
  @spec store_us(t()) :: integer()
  def store_us(deadline), do: deadline.begin_us + div(settle_us(deadline) - deadline.begin_us, 2)

  @doc """
  Until when failed writes are tried again after `prepare_stop/0` or SIGTERM at `now_us`, if no drain has
  begun: for `shutdown_budget_ms`, or for `timeout_ms` if that is not set.
  """
  @spec prepared_us(integer(), nil | pos_integer(), pos_integer()) :: integer()
  def prepared_us(now_us, budget_ms, timeout_ms), do: now_us + (budget_ms || timeout_ms) * 1_000

  @doc "When the engine has to be done."
  @spec settle_us(t()) :: integer()
  def settle_us(deadline), do: deadline.end_us - settle_ms(deadline) * 1_000

  @doc "The time left for the engine at `now_us`, at least 1 ms."
  @spec engine_ms(t(), integer()) :: pos_integer()
  def engine_ms(deadline, now_us), do: max(div(settle_us(deadline) - now_us, 1_000), 1)

  @doc "The time left for the drain at `now_us`, at least 0 ms."
  @spec left_ms(t(), integer()) :: non_neg_integer()
  def left_ms(deadline, now_us), do: until_ms(deadline.end_us, now_us)

  @doc "How long the shutdown waits for the Drainer, which answers at `end_us` unless it hangs."
  @spec answer_ms(t(), integer()) :: pos_integer()
  def answer_ms(deadline, now_us), do: left_ms(deadline, now_us) + @answer_ms

  @doc "How long the shutdown waits for a Drainer that hangs."
  @spec answer_ms() :: pos_integer()
  def answer_ms, do: @answer_ms

  @doc "Milliseconds from `now_us` until `instant_us`, at least 0."
  @spec until_ms(integer(), integer()) :: non_neg_integer()
  def until_ms(instant_us, now_us), do: max(div(instant_us - now_us + 999, 1_000), 0)

  @doc "How long marking the node may take."
  @spec mark_ms(t()) :: pos_integer()
  def mark_ms(deadline), do: deadline |> share_ms(2) |> min(@longest_mark_ms)

  @doc "How long marking all supervisors may take when the VM is told to stop, before any drain runs."
  @spec mark_ms() :: pos_integer()
  def mark_ms, do: @longest_mark_ms

  @doc "How long other nodes may be asked at `now_us`, all of them together."
  @spec ask_ms(t(), integer()) :: pos_integer()
  def ask_ms(deadline, now_us),
    do: deadline |> share_ms(20) |> min(@longest_ask_ms) |> min(engine_ms(deadline, now_us))

  @doc "How long reading the policy of the servers from the store may take at `now_us`."
  @spec policy_ms(t(), integer()) :: pos_integer()
  def policy_ms(deadline, now_us), do: max(div(engine_ms(deadline, now_us), 4), 1)

  @doc """
  How long offering leftovers may take from `now_us` on: the report must be sent before the Drainer continues.
  """
  @spec offer_ms(t(), integer()) :: non_neg_integer()
  def offer_ms(deadline, now_us), do: div(3 * left_ms(deadline, now_us), 4)

  @doc "The `:shutdown` of a child whose `terminate/2` drains for at most `timeout_ms`; `:outer`: of that child's supervisor."
  @spec child_ms(non_neg_integer(), :inner | :outer) :: pos_integer()
  def child_ms(timeout_ms, :inner), do: timeout_ms + @margin_ms
  def child_ms(timeout_ms, :outer), do: timeout_ms + 2 * @margin_ms

  defp settle_ms(deadline), do: deadline |> span_ms() |> div(@settle_share) |> min(@longest_settle_ms)

  defp share_ms(deadline, parts), do: deadline |> span_ms() |> div(parts) |> max(1)

  defp span_ms(deadline), do: div(deadline.end_us - deadline.begin_us, 1_000)
end
