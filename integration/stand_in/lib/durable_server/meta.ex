defmodule DurableServer.Meta do
  @moduledoc """
  The facts about ownership stored beside a state: who runs it, how it last ended, and for whom a restart is
  reserved.

  Pure: time comes in as an argument (`now`, wall clock in milliseconds).
  """

  @crashes_kept 5

  defstruct vsn: 1,
            module: nil,
            permanent: false,
            pid: nil,
            status: :stopped_graceful,
            key: nil,
            prefix: nil,
            sticky_placement: nil,
            sticky_placement_history: [],
            supervisor: nil,
            task_supervisor: nil,
            dynamic_supervisor: nil,
            node_ref: nil,
            node_str: nil,
            last_heartbeat_at: nil,
            crash_history: [],
            restart_attempt_node: nil,
            restart_attempt_time: nil,
            restart_attempt_ttl: nil,
            init_from_ref: nil,
            init_from_pid: nil

  @type t :: %__MODULE__{}
  @type status ::
          :running | :stopped_graceful | :stopped_permanent | :crashed | :permanently_crashed | :deleting | :cordoned

  @doc """
  The metadata of a server that `pid` is about to run on this node. It keeps only the crashes and places of
  the previous owner: a reservation ends with the claim, and whether the server is permanent is known only
  after `init`.
  """
  @spec claimed(t() | nil, DurableServer.Config.t(), module(), pid(), list() | nil, integer()) :: t()
  def claimed(previous, config, module, pid, sticky, now) do
    previous = previous || %__MODULE__{}

    %__MODULE__{
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
      crash_history: previous.crash_history,
      sticky_placement: sticky,
      sticky_placement_history: history(previous.sticky_placement_history, sticky, now)
    }
  end

  @doc "The status a server ends with."
  @spec stopped(t(), status(), integer()) :: t()
  def stopped(meta, status, now), do: %{meta | status: status, last_heartbeat_at: now}

  @doc "Reserves the restart for `node_str` during `ttl_ms`."
  @spec reserve(t(), String.t(), pos_integer(), integer()) :: t()
  def reserve(meta, node_str, ttl_ms, now),
    do: %{meta | restart_attempt_node: node_str, restart_attempt_time: now, restart_attempt_ttl: now + ttl_ms}

  @spec release(t()) :: t()
  def release(meta), do: %{meta | restart_attempt_node: nil, restart_attempt_time: nil, restart_attempt_ttl: nil}

  @doc "Whether a reservation is valid; nil, not false, if there is none."
  @spec reserved?(t(), integer()) :: boolean() | nil
  def reserved?(meta, now), do: meta.restart_attempt_ttl && now < meta.restart_attempt_ttl

  @doc "The node a valid reservation names, if there is one."
  @spec reserved_for(t(), integer()) :: String.t() | nil
  def reserved_for(meta, now), do: if(reserved?(meta, now), do: meta.restart_attempt_node)

  @doc "Records a crash. The fifth in a row is permanent."
  @spec crashed(t(), term(), integer()) :: t()
  def crashed(meta, reason, now) do
    crash = %{reason: Exception.format_exit(reason), timestamp: now, node_ref: meta.node_ref}
    history = Enum.take([crash | meta.crash_history], @crashes_kept)
    status = if length(history) == @crashes_kept, do: :permanently_crashed, else: :crashed
    stopped(%{meta | crash_history: history}, status, now)
  end

  @doc "The term that is stored: a map without the fields that follow from the object's key."
  @spec to_storage_term(t()) :: map()
  def to_storage_term(%__MODULE__{} = meta), do: meta |> Map.from_struct() |> Map.drop([:key, :prefix])

  @doc "Reads it back. Raises `ArgumentError` for anything else."
  @spec from_storage_term(term()) :: t()
  def from_storage_term(%{status: status} = term) when is_atom(status) do
    struct!(__MODULE__, Map.drop(term, [:__struct__]))
  rescue
    error in KeyError -> reraise ArgumentError, [message: Exception.message(error)], __STACKTRACE__
  end

  def from_storage_term(_other), do: raise(ArgumentError, "invalid persisted metadata")

  defp history([%{placement: sticky} | _] = history, sticky, _now), do: history
  defp history(history, sticky, now), do: Enum.take([%{at: now, placement: sticky} | history], @crashes_kept)
end
