defmodule EarlyMeta do
  @moduledoc """
  A `heartbeat_meta` function that asks DurableServer for the supervisor's `node_ref` and records the result,
  to test the order of a supervisor's start.
  """

  @doc "Sets the supervisor that `ask/0` on `node` asks for, and deletes recorded results."
  @spec watch(node(), atom()) :: :ok
  def watch(node, supervisor), do: :erpc.call(node, :persistent_term, :put, [__MODULE__, {supervisor, []}])

  @doc "The results of the calls on `node`, oldest first."
  @spec asked(node()) :: [term()]
  def asked(node) do
    {_supervisor, answers} = :erpc.call(node, :persistent_term, :get, [__MODULE__])
    Enum.reverse(answers)
  end

  @spec ask() :: map()
  def ask do
    {supervisor, answers} = :persistent_term.get(__MODULE__)
    answer = Relay.try({DurableServer.Supervisor, :node_ref, [supervisor]})
    :persistent_term.put(__MODULE__, {supervisor, [answer | answers]})
    %{}
  end
end
