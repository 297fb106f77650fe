defmodule Group do
  @moduledoc """
  A registry replicated to every node of the cluster, eventually consistent.

  Guarantees:

    * Reads (`lookup/2`, `members/2`) come from this node's own replica and never wait for another node. After a change
      elsewhere they show the old answer for as long as the broadcast takes.
    * Changes made on one node arrive everywhere in the order in which they were made.
    * A process that exits is removed on all nodes. A node that disconnects is removed with all its processes,
      and all of them are added again when it returns.
    * Two processes registered under one key (a healed partition) end as one: the newer registration stays,
      the other process is told to exit with `{:group_registry_conflict, key, meta}`.

  A key has at most one *registered* process (`register/3`, `lookup/2`) and any number of *joined* ones
  (`join/3`, `members/2`).
  """

  alias Group.Replica

  @type name :: atom()
  @type key :: String.t()
  @typedoc "A key, a prefix ending in `/`, or every key."
  @type pattern :: key() | :all

  @doc "Registers the calling process under `key`, or replaces its metadata. A live process of this node keeps its key."
  @spec register(name(), key(), term()) :: :ok | {:error, {:taken, {pid(), term()}}}
  def register(name, key, meta), do: tell(name, {:register, key, self(), meta})

  @doc "Undoes `register/3` of the calling process."
  @spec unregister(name(), key()) :: :ok
  def unregister(name, key), do: tell(name, {:drop, {:registered, key}, self()})

  @doc "Adds the calling process to the members of `key`, or replaces its metadata there."
  @spec join(name(), key(), term()) :: :ok
  def join(name, key, meta), do: tell(name, {:join, key, self(), meta})

  @doc "Undoes `join/3` of the calling process."
  @spec leave(name(), key()) :: :ok
  def leave(name, key), do: tell(name, {:drop, {:joined, key, self()}, self()})

  @doc "The process registered under `key` as this node knows it."
  @spec lookup(name(), key()) :: {pid(), term()} | nil
  def lookup(name, key) do
    case :ets.lookup(Replica.table(name), {:registered, key}) do
      [{_id, pid, meta, _stamp}] -> {pid, meta}
      [] -> nil
    end
  rescue
    # The group does not run here.
    ArgumentError -> nil
  end

  @doc "Every process joined to `key`. Those registered under it are not among them."
  @spec members(name(), key()) :: [{pid(), term()}]
  def members(name, key) do
    :ets.select(Replica.table(name), [{{{:joined, key, :_}, :"$1", :"$2", :_}, [], [{{:"$1", :"$2"}}]}])
  end

  @doc "The registrations of this node's own processes: `[{key, pid, meta}]`."
  @spec local_registrations(name()) :: [{key(), pid(), term()}]
  def local_registrations(name) do
    name
    |> Replica.table()
    |> :ets.select([{{{:registered, :"$1"}, :"$2", :"$3", :_}, [], [{{:"$1", :"$2", :"$3"}}]}])
    |> Enum.filter(fn {_key, pid, _meta} -> node(pid) == node() end)
  end

  @doc """
  Sends the calling process `{:group, [%Group.Event{}], %{supervisor: name}}` for every later change of a matching key,
  wherever in the cluster it happens.
  """
  @spec monitor(name(), pattern()) :: :ok
  def monitor(name, pattern), do: tell(name, {:monitor, pattern, self()})

  @doc "Undoes one `monitor/2` of the calling process."
  @spec demonitor(name(), pattern()) :: :ok
  def demonitor(name, pattern), do: tell(name, {:demonitor, pattern, self()})

  # The call goes to this node's own replica, which never waits, so it has no timeout. With one, a node that
  # was paused for longer (SIGSTOP, a moved virtual machine) would end its own processes afterwards, because
  # the timeout would expire before the answer is read.
  defp tell(name, request), do: GenServer.call(Replica.name(name), request, :infinity)
end
