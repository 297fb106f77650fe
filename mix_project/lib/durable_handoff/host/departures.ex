defmodule DurableHandoff.Host.Departures do
  @moduledoc """
  Word of every server that comes up or goes down anywhere in the cluster, from the host's registry.

  Guarantees: nothing here raises because the host is absent, busy or of a later version; a message that is
  none of its own is `[]`. Events can be lost (a replica that was cut off), so waiters also poll.
  """

  alias DurableHandoff.Host
  alias DurableHandoff.Host.Registry

  @type change :: {:up | :down, key :: term(), node()}

  @doc "From now on the calling process is sent a message for every change; `read/1` understands it."
  @spec subscribe(Host.name()) :: :ok | {:error, term()}
  def subscribe(name), do: Registry.subscribe(name, :all)

  @doc "Undoes `subscribe/1`. Messages that were on their way still arrive."
  @spec unsubscribe(Host.name()) :: :ok
  def unsubscribe(name), do: Registry.unsubscribe(name, :all)

  @doc "The changes a message tells of, in their order."
  @spec read(term()) :: [change()]
  def read({:group, events, _info}) when is_list(events) do
    for %{type: type, key: key, pid: pid} <- events, is_pid(pid), type in [:registered, :unregistered] do
      {if(type == :registered, do: :up, else: :down), key, node(pid)}
    end
  end

  def read(_other), do: []
end
