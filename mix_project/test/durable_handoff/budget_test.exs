defmodule DurableHandoff.BudgetTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.{Budget, Options}

  defp options(given), do: Options.new!(given)

  test "the warning has the sum and its parts" do
    warning = Budget.warning(options(timeout_ms: 30_000, shutdown_budget_ms: 90_000), 55_000, 30_000)
    for number <- ~w(115000 30000 55000 90000), do: assert(warning =~ number)
  end

  test "no warning when the budget suffices, nor without a budget" do
    assert Budget.warning(options(timeout_ms: 30_000, shutdown_budget_ms: 115_000), 55_000, 30_000) == nil
    assert Budget.warning(options(timeout_ms: 30_000), 55_000, 30_000) == nil
  end

  test "without a budget the log line at start has the assumed one" do
    opening = Budget.opening(options(timeout_ms: 30_000, max_concurrency: 7), 55_000, 0)
    for part <- ["30000", "at most 7", "85000", "docker stop 10 s", "Kubernetes 30 s"], do: assert(opening =~ part)
    assert Budget.opening(options(shutdown_budget_ms: 95_000), 55_000, 0) =~ "95000"
  end

  describe "children that stop before the Drainer" do
    defp child(id, shutdown), do: %{id: id, start: {Agent, :start_link, [fn -> id end]}, shutdown: shutdown}

    defp tree(id, children) do
      %{id: id, start: {Supervisor, :start_link, [children, [strategy: :one_for_one]]}, type: :supervisor}
    end

    defp child_of(supervisor, id) do
      {^id, pid, _type, _modules} = List.keyfind(Supervisor.which_children(supervisor), id, 0)
      pid
    end

    test "count at each level, one after the other; those that stop later do not" do
      inner = tree(:inner, [child(:earlier, 1_000), child(:ours, 5_000), child(:later, 20)])

      web = tree(:web, [child(:endpoint, 300)])
      top = start_supervised!(tree(:top, [child(:first, 70), inner, web, child(:job, 4)]))
      inner = child_of(top, :inner)
      assert Budget.before_ms(child_of(inner, :ours), [inner, top]) == 20 + 300 + 4
    end

    test "one without a limit counts as zero, as does one with brutal_kill" do
      top = start_supervised!(tree(:top, [child(:ours, 1), child(:endless, :infinity), child(:killed, :brutal_kill)]))
      assert Budget.before_ms(child_of(top, :ours), [top]) == 0
    end

    test "a DynamicSupervisor with children beside, below or above the Drainer survives the query" do
      start = {DynamicSupervisor, :start_link, [[strategy: :one_for_one]]}
      dynamic = %{id: :dynamic, start: start, type: :supervisor}
      top = start_supervised!(tree(:top, [child(:ours, 1), tree(:web, [dynamic]), child(:job, 30)]))
      dynamic = top |> child_of(:web) |> child_of(:dynamic)
      for id <- [:one, :two], do: {:ok, _pid} = DynamicSupervisor.start_child(dynamic, child(id, 700))
      started = DynamicSupervisor.which_children(dynamic)

      assert Budget.before_ms(child_of(top, :ours), [top]) == 30
      {:undefined, below, _type, _modules} = List.last(started)
      assert Budget.before_ms(below, [dynamic]) == 0
      assert DynamicSupervisor.which_children(dynamic) == started
    end

    test "an ancestor that is not a supervisor ends the search: an application master, or a name that is gone" do
      ours = start_supervised!(child(:ours, 1))
      assert Budget.before_ms(ours, [self(), :gone]) == 0
      assert Budget.before_ms(ours, [:gone]) == 0
    end
  end
end
