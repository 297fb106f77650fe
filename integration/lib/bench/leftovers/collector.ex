defmodule HandoffBench.Leftovers.Collector do
  @moduledoc false
  # Collects when and where each server started and stopped, by the wall clock: all nodes are on one machine.

  use GenServer

  @type event :: {:up | :down | :ended, key :: String.t(), node(), at_us :: integer()}

  @spec start_link() :: GenServer.on_start()
  def start_link, do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "Called by a server, or at the end of a drain: now."
  @spec tell(node(), :up | :down | :ended, String.t()) :: :ok
  def tell(collector, what, key) do
    send({__MODULE__, collector}, {what, key, node(), System.os_time(:microsecond)})
    :ok
  end

  @doc "All events, the oldest first."
  @spec events() :: [event()]
  def events, do: GenServer.call(__MODULE__, :events, 30_000)

  @doc "How many servers have come up on a node."
  @spec started_on(node()) :: non_neg_integer()
  def started_on(node), do: Enum.count(events(), &match?({:up, _key, ^node, _at}, &1))

  @impl true
  def init(nil), do: {:ok, []}

  @impl true
  def handle_call(:events, _from, events), do: {:reply, Enum.sort_by(events, &elem(&1, 3)), events}

  @impl true
  def handle_info(event, events), do: {:noreply, [event | events]}
end
