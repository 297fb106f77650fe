defmodule Crashes do
  @moduledoc "Tests what a function leaves behind when its process dies after any of its writes to ETS."

  @writes [insert: 2, insert_new: 2, delete: 2, select_delete: 2]

  @type work :: {module(), atom(), [term()]}

  @doc """
  For each number of writes, from none to all: calls `prepare`, then executes `work` up to that number of
  writes. Returns the results of `check` after each. To be called on the node of the table.
  """
  @spec after_each_write(work(), work(), (() -> result)) :: [result] when result: term()
  def after_each_write({_module, _function, _args} = prepare, work, check) do
    run(prepare)
    writes = writes(work)

    for count <- 0..length(writes) do
      run(prepare)
      for {function, args} <- Enum.take(writes, count), do: apply(:ets, function, args)
      check.()
    end
  end

  defp run({module, function, args}), do: apply(module, function, args)

  defp writes(work) do
    {pid, monitor} = spawn_monitor(fn -> receive(do: (:go -> run(work))) end)
    for {function, arity} <- @writes, do: :erlang.trace_pattern({:ets, function, arity}, true, [])
    :erlang.trace(pid, true, [:call])
    send(pid, :go)

    receive do
      {:DOWN, ^monitor, :process, ^pid, :normal} -> :ok
    end

    delivered = :erlang.trace_delivered(pid)

    receive do
      {:trace_delivered, ^pid, ^delivered} -> :ok
    end

    for {function, arity} <- @writes, do: :erlang.trace_pattern({:ets, function, arity}, false, [])
    collect(pid)
  end

  defp collect(pid) do
    receive do
      {:trace, ^pid, :call, {:ets, function, args}} -> [{function, args} | collect(pid)]
    after
      0 -> []
    end
  end

  @doc "The mark of a node after a crash, after the repair, and whether it can be changed as before."
  @spec marks(atom()) :: map()
  def marks(sup) do
    mark = DurableHandoff.Host.Mark

    %{
      left: mark.mark(sup),
      repaired: mark.repair(sup),
      cordoned: mark.cordon(sup),
      uncordoned: mark.uncordon(sup)
    }
  end

  @doc "`marks/1` after each write of `Mark.uncordon/1` and of `Mark.cordon/1`."
  @spec of_marks(atom()) :: %{cordon: [map()], uncordon: [map()]}
  def of_marks(sup) do
    mark = DurableHandoff.Host.Mark
    check = fn -> marks(sup) end

    %{
      uncordon: after_each_write({mark, :cordon, [sup]}, {mark, :uncordon, [sup]}, check),
      cordon: after_each_write({mark, :uncordon, [sup]}, {mark, :cordon, [sup]}, check)
    }
  end
end
