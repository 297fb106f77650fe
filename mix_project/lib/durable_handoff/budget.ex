defmodule DurableHandoff.Budget do
  @moduledoc false
  # Log lines about the time of a shutdown: at start, and when a drain is cut. `DurableHandoff.Deadline`
  # divides the time.

  alias DurableHandoff.{Host, Options}

  # The grace periods of platforms by default.
  @platforms "docker stop 10 s, Kubernetes 30 s, Fly.io 5 s"

  @doc """
  The log line at start: handoff is on, with these limits and this budget.
  """
  @spec opening(Options.t(), non_neg_integer(), non_neg_integer()) :: String.t()
  def opening(%Options{} = options, graceful_ms, before_ms) do
    "handoff is on: a shutdown drains for at most #{options.timeout_ms} ms, at most #{options.max_concurrency} servers at a time; " <>
      "all of it may take #{sum(options, graceful_ms, before_ms)}; " <> budget(options)
  end

  defp budget(%{shutdown_budget_ms: nil}) do
    "no shutdown_budget_ms is set, so the library assumes that the platform waits that long. Platforms wait less by default " <>
      "(#{@platforms}): configure both"
  end

  defp budget(%{shutdown_budget_ms: budget_ms}), do: "shutdown_budget_ms is #{budget_ms}"

  @doc """
  The warning at start when a shutdown may take longer than the budget; nil when it fits or none is given.
  """
  @spec warning(Options.t(), non_neg_integer(), non_neg_integer()) :: nil | String.t()
  def warning(%{shutdown_budget_ms: nil}, _graceful_ms, _before_ms), do: nil

  def warning(%{shutdown_budget_ms: budget_ms} = options, graceful_ms, before_ms) do
    if total(options, graceful_ms, before_ms) > budget_ms do
      "a shutdown may take #{sum(options, graceful_ms, before_ms)}, but shutdown_budget_ms is #{budget_ms}: the drain is cut to what is " <>
        "left of it, and the node could be killed before all states are stored. Lower one of them or raise the budget"
    end
  end

  @doc "The log line when a drain gets less time than `timeout_ms`."
  @spec cut(map()) :: String.t()
  def cut(cut) do
    "the drain is cut from #{cut.timeout_ms} to #{cut.to_ms} ms: #{cut.passed_ms} of the #{cut.budget_ms} ms of shutdown_budget_ms " <>
      "have passed since this node was told to stop, and #{cut.graceful_ms} ms are kept for the graceful shutdown"
  end

  defp total(options, graceful_ms, before_ms), do: before_ms + options.timeout_ms + graceful_ms

  @doc "How long the whole shutdown may take, and its parts."
  @spec sum(Options.t(), non_neg_integer(), non_neg_integer()) :: String.t()
  def sum(options, graceful_ms, before_ms) do
    before = if before_ms > 0, do: "children that stop before it #{before_ms} + ", else: ""

    "#{total(options, graceful_ms, before_ms)} ms (#{before}timeout_ms #{options.timeout_ms} + " <>
      "graceful_shutdown_total_timeout_ms #{graceful_ms})"
  end

  @doc """
  How long, in milliseconds, the children that stop before `pid` may take: those that were started after it,
  at each level of its supervision tree. `ancestors` are the supervisors above it (`:"$ancestors"`), the
  nearest first. A child without a time limit is not counted.

  Waits until each supervisor has started all its children, so call it in a separate process.
  """
  @spec before_ms(pid(), [pid() | atom()]) :: non_neg_integer()
  def before_ms(pid, ancestors) do
    ancestors
    |> Enum.map(&pid_of/1)
    |> Enum.take_while(&supervisor?/1)
    |> Enum.reduce({pid, 0}, fn supervisor, {child, sum} -> {supervisor, sum + after_child_ms(supervisor, child)} end)
    |> elem(1)
  catch
    # The supervisor has ended.
    :exit, _reason -> 0
  end

  defp pid_of(pid) when is_pid(pid), do: pid
  defp pid_of(name), do: Process.whereis(name)

  # The last ancestor is the application master, which does not answer this question.
  defp supervisor?(pid) do
    is_pid(pid) and node(pid) == node() and
      match?({:supervisor, _module, _arity}, :proc_lib.translate_initial_call(pid))
  end

  # A supervisor lists its children in the order in which it stops them: the last one first.
  defp after_child_ms(supervisor, child) do
    supervisor
    |> children()
    |> Enum.take_while(fn {_id, pid, _type, _modules} -> pid != child end)
    |> shutdown_ms(supervisor)
  end

  # The children stop one after the other. A DynamicSupervisor crashes when it is asked for a specification;
  # its children have no ids.
  defp shutdown_ms(children, supervisor) do
    children
    |> Enum.reject(fn {id, _pid, _type, _modules} -> id == :undefined end)
    |> Enum.map(fn {id, pid, type, _modules} ->
      case :supervisor.get_childspec(supervisor, id) do
        {:ok, %{shutdown: shutdown_ms}} when is_integer(shutdown_ms) -> shutdown_ms
        {:ok, %{shutdown: :infinity}} when type == :supervisor -> inner_ms(pid)
        _no_limit -> 0
      end
    end)
    |> Enum.sum()
  end

  # The children of a DynamicSupervisor or a Task.Supervisor stop at the same time, and are not counted.
  defp inner_ms(pid), do: if(supervisor?(pid), do: pid |> children() |> shutdown_ms(pid), else: 0)

  defp children(supervisor), do: GenServer.call(supervisor, :which_children, :infinity)

  @doc "The log line at start and the warning, or nil, for `supervisor`."
  @spec lines(Host.name(), Options.t(), non_neg_integer()) :: {String.t(), nil | String.t()}
  def lines(supervisor, options, before_ms) do
    graceful_ms = Host.graceful_shutdown_ms(supervisor)
    {opening(options, graceful_ms, before_ms), warning(options, graceful_ms, before_ms)}
  end
end
