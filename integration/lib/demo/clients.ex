defmodule HandoffDemo.Clients do
  @moduledoc """
  The clients of the demo: a fixed number of processes on one node that call servers until they are told to
  stop.
  """

  use GenServer

  alias HandoffDemo.{Client, Control}

  @tell_every_ms 250

  # `calls` is that of `t:HandoffDemo.Client.job/0`.
  @enforce_keys [:how]
  defstruct [:how, :calls, clients: []]

  @typedoc """
  Calls by outcome; for each server the number of answered increments, the number of increments that may have
  been applied, and the highest counter that must be kept; and every call as `t:HandoffDemo.Client.times/0`.
  """
  @type result ::
          {[{outcome :: String.t(), count :: pos_integer()}],
           [{index :: non_neg_integer(), integer(), integer(), integer()}], binary()}

  @doc "How clients call is the argument: `:plain` or `:handoff`."
  @spec start_link(Client.how()) :: GenServer.on_start()
  def start_link(how), do: GenServer.start_link(__MODULE__, how, name: __MODULE__)

  @doc "Starts `count` clients. See `t:HandoffDemo.Client.job/0`."
  @spec start(non_neg_integer(), map()) :: :ok
  def start(count, job), do: GenServer.call(__MODULE__, {:start, count, job})

  @doc "Stops all clients when they have finished their calls, and adds up their results."
  @spec stop() :: result()
  def stop, do: GenServer.call(__MODULE__, :stop, :infinity)

  @impl true
  def init(how), do: {:ok, %__MODULE__{how: how}}

  @impl true
  def handle_call({:start, count, job}, _from, state) do
    calls = :counters.new(2, [:write_concurrency])
    job = Map.merge(job, %{how: state.how, calls: calls})
    clients = for _ <- 1..count//1, do: Client.start_link(job)
    Process.send_after(self(), :tell, @tell_every_ms)
    {:reply, :ok, %{state | clients: clients, calls: calls}}
  end

  def handle_call(:stop, _from, state) do
    tallies = state.clients |> Enum.map(&Client.ask_to_stop/1) |> Enum.map(&Client.await/1)
    {:reply, add_up(tallies), %{state | clients: []}}
  end

  @impl true
  def handle_info(:tell, %{clients: []} = state), do: {:noreply, state}

  def handle_info(:tell, state) do
    Control.send_event({:calls, :counters.get(state.calls, 1), :counters.get(state.calls, 2)})
    Process.send_after(self(), :tell, @tell_every_ms)
    {:noreply, state}
  end

  defp add_up(tallies) do
    acknowledged = merge(tallies, :acknowledged, &+/2)
    uncertain = merge(tallies, :uncertain, &+/2)
    kept = merge(tallies, :kept, &max/2)

    servers =
      for index <- Enum.uniq(Map.keys(acknowledged) ++ Map.keys(uncertain)),
          do: {index, Map.get(acknowledged, index, 0), Map.get(uncertain, index, 0), Map.get(kept, index, 0)}

    times = tallies |> Enum.map(& &1.times) |> IO.iodata_to_binary()
    {tallies |> merge(:outcomes, &+/2) |> Map.to_list(), servers, times}
  end

  defp merge(tallies, field, both) do
    tallies
    |> Enum.map(&Map.fetch!(&1, field))
    |> Enum.reduce(%{}, &Map.merge(&1, &2, fn _key, a, b -> both.(a, b) end))
  end
end
