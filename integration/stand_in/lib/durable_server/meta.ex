defmodule DurableServer.Meta do
  @moduledoc """
  The facts about ownership stored beside a state: who runs it, how it last ended, and for whom a restart is reserved.

  Pure: time comes in as an argument (`now`, wall clock in milliseconds).
  """

  @version 1
  @crashes_kept 5

  @type t :: map()
  @type status ::
          :running | :stopped_graceful | :stopped_permanent | :crashed | :permanently_crashed | :deleting | :cordoned

  @doc "The metadata of a server that `pid` is about to run here. What the previous owner left is kept where it still counts."
  @spec claimed(t() | nil, DurableServer.Config.t(), module(), pid(), list() | nil, integer()) :: t()
  def claimed(previous, config, module, pid, sticky, now) do
    previous = previous || %{}

    Map.merge(
      %{
        permanent: false,
        crash_history: [],
        restart_attempt_node: nil,
        restart_attempt_time: nil,
        restart_attempt_ttl: nil
      },
      previous
    )
    |> Map.merge(%{
      vsn: @version,
      module: module,
      node_str: Atom.to_string(node()),
      node_ref: config.node_ref,
      pid: pid,
      init_from_pid: pid,
      init_from_ref: make_ref(),
      status: :running,
      supervisor: config.name,
      task_supervisor: config.task_supervisor,
      dynamic_supervisor: config.dynamic_supervisor,
      last_heartbeat_at: now,
      sticky_placement: sticky,
      sticky_placement_history: history(previous, sticky, now)
    })
  end

  @doc "After `init` on the new owner: the reservation has done its work."
  @spec started(t(), boolean(), integer()) :: t()
  def started(meta, permanent?, now), do: %{release(meta) | permanent: permanent?, last_heartbeat_at: now}

  @doc "The status a server ends with."
  @spec stopped(t(), status(), integer()) :: t()
  def stopped(meta, :stopped_graceful, now),
    do: %{meta | status: :stopped_graceful, last_heartbeat_at: now, crash_history: []}

  def stopped(meta, status, now), do: %{meta | status: status, last_heartbeat_at: now}

  @doc "Reserves the restart for `node_str` during `ttl_ms`."
  @spec reserve(t(), String.t(), pos_integer(), integer()) :: t()
  def reserve(meta, node_str, ttl_ms, now),
    do: %{meta | restart_attempt_node: node_str, restart_attempt_time: now, restart_attempt_ttl: now + ttl_ms}

  @spec release(t()) :: t()
  def release(meta), do: %{meta | restart_attempt_node: nil, restart_attempt_time: nil, restart_attempt_ttl: nil}

  @doc "The node a valid reservation names, if there is one."
  @spec reserved_for(t(), integer()) :: String.t() | nil
  def reserved_for(%{restart_attempt_node: node_str, restart_attempt_ttl: until}, now)
      when is_binary(node_str) and is_integer(until) and until > now,
      do: node_str

  def reserved_for(_meta, _now), do: nil

  @doc "Ends with a crash: the fifth in a row is for good."
  @spec crashed(t(), term(), integer()) :: t()
  def crashed(meta, reason, now) do
    crash = %{reason: Exception.format_exit(reason), timestamp: now}
    history = Enum.take([crash | meta.crash_history], @crashes_kept)
    status = if length(history) == @crashes_kept, do: :permanently_crashed, else: :crashed
    stopped(%{meta | crash_history: history}, status, now)
  end

  defp history(%{sticky_placement: [_ | _] = old} = previous, sticky, now) when old != sticky,
    do: Enum.take([%{at: now, placement: old} | Map.get(previous, :sticky_placement_history, [])], @crashes_kept)

  defp history(previous, _sticky, _now), do: Map.get(previous, :sticky_placement_history, [])
end
