defmodule FailingStart do
  @moduledoc """
  A server whose start is about to fail: it is registered, as DurableServer does before it stores that the
  server runs, and ends at the next request without an answer.
  """

  use GenServer

  @doc "Starts and registers it on this node."
  @spec start(atom(), String.t(), module()) :: pid()
  def start(supervisor, key, module) do
    {:ok, pid} = GenServer.start(__MODULE__, {supervisor, key, module})
    pid
  end

  @impl true
  def init({supervisor, key, module}) do
    :ok = Group.register(supervisor, key, struct(DurableServer.GroupMeta, key: key, module: module))
    {:ok, nil}
  end

  @impl true
  def handle_call(_any, _from, state), do: {:stop, {:shutdown, {:durable, {:init_failed, :unavailable}}}, state}
end
