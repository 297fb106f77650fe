defmodule DurableHandoff.DeadlineTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Deadline

  @k8s %{timeout_ms: 30_000, budget_ms: 95_000, noted_us: nil, graceful_ms: 55_000, need_ms: 1_000}

  defp ms(deadline), do: div(deadline.end_us - deadline.begin_us, 1_000)

  test "without a budget a drain has timeout_ms, independent of the time that has passed" do
    deadline = Deadline.shutdown(40_000_000, %{@k8s | budget_ms: nil, noted_us: 0})
    assert {ms(deadline), deadline.kill_us, deadline.cut} == {30_000, nil, nil}
  end

  test "a budget for drain and graceful shutdown leaves the latter its whole time" do
    # SIGTERM at 5 s: 90 s of the budget are left, 55 s of them belong to the graceful shutdown.
    deadline = Deadline.shutdown(10_000_000, %{@k8s | noted_us: 5_000_000})
    assert {ms(deadline), deadline.kill_us, deadline.cut} == {30_000, 100_000_000, nil}
  end

  test "30 s of a child that stopped earlier shorten the drain, not the graceful shutdown" do
    deadline = Deadline.shutdown(30_000_000, %{@k8s | noted_us: 0})
    assert ms(deadline) == 10_000

    assert deadline.cut ==
             %{to_ms: 10_000, timeout_ms: 30_000, budget_ms: 95_000, passed_ms: 30_000, graceful_ms: 55_000}
  end

  test "a budget that is too small for both leaves the time that the servers are expected to need" do
    docker = %{@k8s | budget_ms: 10_000, noted_us: 0}
    assert ms(Deadline.shutdown(3_000_000, %{docker | need_ms: 2_000})) == 5_000
    # Never more than DurableServer itself allows its graceful shutdown.
    assert ms(Deadline.shutdown(3_000_000, %{docker | need_ms: 9_000, graceful_ms: 4_000})) == 3_000
  end

  test "if the budget is almost used up, the drain gets an eighth of the rest" do
    docker = %{@k8s | budget_ms: 10_000, noted_us: 0, need_ms: 60_000}
    assert ms(Deadline.shutdown(2_000_000, docker)) == 1_000
    assert ms(Deadline.shutdown(9_999_999, docker)) == 0
  end

  test "a budget that is already exceeded starts again" do
    assert ms(Deadline.shutdown(95_000_000, %{@k8s | noted_us: 0})) == 30_000
    assert Deadline.shutdown(99_000_000, %{@k8s | noted_us: 0}).kill_us == 194_000_000
  end

  test "a drain never ends after the platform's kill, and never takes longer than timeout_ms" do
    for passed_ms <- [0, 1, 999, 7_000, 44_000, 94_999, 95_000, 200_000],
        budget_ms <- [1, 5_000, 10_000, 30_000, 85_000, 95_000],
        timeout_ms <- [1, 100, 30_000, 300_000],
        need_ms <- [0, 500, 1_000_000] do
      about = %{@k8s | budget_ms: budget_ms, timeout_ms: timeout_ms, need_ms: need_ms, noted_us: 0}
      begin_us = passed_ms * 1_000
      deadline = Deadline.shutdown(begin_us, about)
      assert deadline.end_us <= max(deadline.kill_us, begin_us)
      assert ms(deadline) in 0..timeout_ms
      assert ms(deadline) == timeout_ms or deadline.cut.to_ms == ms(deadline)
    end
  end

  test "the phases of a drain end in order and before its deadline" do
    for timeout_ms <- [1, 9, 10, 100, 1_000, 30_000, 86_400_000] do
      deadline = Deadline.drain(7, timeout_ms)
      phases = for phase <- [:store_us, :settle_us, :joined_us], do: apply(Deadline, phase, [deadline])
      instants = [7 | phases] ++ [deadline.end_us]
      assert instants == Enum.sort(instants)
      # Each phase has time of its own, unless the drain has too little for that.
      if timeout_ms >= 100, do: assert(instants == Enum.uniq(instants))
      assert 7 + 1_000 * Deadline.engine_ms(deadline, 7) <= max(Deadline.settle_us(deadline), 1_007)
      assert Deadline.settle_us(deadline) >= deadline.end_us - 500_000
      assert Deadline.engine_ms(deadline, deadline.end_us + 1) == 1
      assert Deadline.left_ms(deadline, deadline.end_us + 1) == 0
      assert Deadline.offer_ms(deadline, deadline.end_us) == 0

      assert Deadline.mark_ms(deadline) >= 1

      # Even if they begin late, they end when the engine has to be done.
      for now_us <- [7, Deadline.store_us(deadline), Deadline.settle_us(deadline), deadline.end_us],
          span <- [Deadline.ask_ms(deadline, now_us), Deadline.policy_ms(deadline, now_us)],
          do: assert(span in 1..Deadline.engine_ms(deadline, now_us))

      assert Deadline.answer_ms(deadline, deadline.begin_us) in (timeout_ms + 1)..(timeout_ms + 200)

      assert Deadline.child_ms(timeout_ms, :inner) > timeout_ms
      assert Deadline.child_ms(timeout_ms, :outer) > Deadline.child_ms(timeout_ms, :inner)
    end
  end

  test "a long drain does not lengthen the phases before the moves" do
    deadline = Deadline.drain(0, 86_400_000)
    assert {Deadline.mark_ms(deadline), Deadline.ask_ms(deadline, 0)} == {5_000, 500}
  end
end
