defmodule LateRegistry do
  @moduledoc """
  A registry that gets no updates for some keys: lookups keep their last answer, and no event arrives. As on a
  node whose replica lags, is cut off, or speaks another version than the rest of the cluster.

  It has the functions of `DurableHandoff.Host.Registry`. `client/1` is the child that uses it, beside a bare
  `DurableServer.Supervisor`; calls through it are
  `DurableHandoff.Client.call(LateRegistry, sup, key, request, opts)`.
  """

  alias DurableHandoff.Client.{Limits, Server}
  alias DurableHandoff.Host.Registry

  @doc "From now on `node` learns nothing more of `key`, which has to be unique among all tests."
  @spec freeze(node(), atom(), String.t()) :: :ok
  def freeze(node, supervisor, key), do: :erpc.call(node, __MODULE__, :freeze, [supervisor, key])

  @doc false
  def freeze(supervisor, key), do: :persistent_term.put({__MODULE__, key}, {:frozen, Registry.owner(supervisor, key)})

  @doc "The process that waits for callers of `supervisor` on its node, as a child of a supervision tree."
  @spec client(atom()) :: Supervisor.child_spec()
  def client(supervisor) do
    arguments = %{supervisor: supervisor, limits: Limits.new!([]), registry: __MODULE__}
    %{id: Server, start: {Server, :start_link, [arguments]}}
  end

  def owner(supervisor, key) do
    case frozen(key) do
      {:frozen, owner} -> owner
      nil -> Registry.owner(supervisor, key)
    end
  end

  def events(message), do: for({_type, key, _pid} = event <- Registry.events(message), frozen(key) == nil, do: event)

  defdelegate subscribe(supervisor, key), to: Registry
  defdelegate unsubscribe(supervisor, key), to: Registry
  defdelegate up(supervisor), to: Registry
  defdelegate start(supervisor, key, start, timeout_ms), to: Registry

  defp frozen(key), do: :persistent_term.get({__MODULE__, key}, nil)
end
