defmodule LateRegistry do
  @moduledoc """
  A registry that gets no updates for some keys: lookups keep returning the last answer, and no event arrives,
  as on a node whose replica lags, is disconnected, or has another version.

  It has the functions of `DurableHandoff.Host.Registry`. `client/1` is the child that uses it, beside a bare
  `DurableServer.Supervisor`; calls through it are
  `DurableHandoff.Client.call(LateRegistry, sup, key, request, opts)`.
  """

  alias DurableHandoff.Client.{Limits, Server}
  alias DurableHandoff.Host.Registry

  @doc "Stops updates of `key` on `node`. The key has to be unique among all tests."
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
