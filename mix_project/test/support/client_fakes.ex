defmodule DurableHandoff.ClientCase do
  @moduledoc "A test of callers, with a registry (`sup` in its context) and servers that it controls."

  use ExUnit.CaseTemplate

  import DurableHandoff.Eventually

  alias DurableHandoff.Client.{FakeRegistry, FakeServer, Limits, Server}

  @never_ms 3_600_000

  using do
    quote do
      import DurableHandoff.{ClientCase, Eventually}

      alias DurableHandoff.Client
      alias DurableHandoff.Client.{FakeRegistry, FakeServer, Limits, Server}

      @moduletag :capture_log
    end
  end

  setup do
    {:ok, sup: FakeRegistry.new(), counter: :counters.new(1, [])}
  end

  @doc "Starts the client process, which never polls unless `more` says otherwise."
  def start_client(%{sup: sup}, more \\ []) do
    arguments = %{supervisor: sup, limits: Limits.new!([]), registry: FakeRegistry, poll_ms: @never_ms}
    start_supervised!(%{id: Server, start: {Server, :start_link, [Map.merge(arguments, Map.new(more))]}})
  end

  @doc "Starts a server that counts in the test's counter."
  def start_server(%{counter: counter}) do
    {:ok, server} = FakeServer.start(counter)
    server
  end

  def call(sup, key, request \\ :add, options),
    do: Task.async(fn -> DurableHandoff.Client.call(FakeRegistry, sup, key, request, options) end)

  def await_waiting(%{sup: sup}, count), do: wait_until(fn -> Server.counts(sup).callers == count end)
end

defmodule DurableHandoff.Client.FakeRegistry do
  @moduledoc """
  A registry whose lookups and events the test controls. It has the functions of
  `DurableHandoff.Host.Registry`; the supervisor's name is the name of its table.
  """

  @doc "Creates a registry for the calling test, as if DurableServer were up."
  def new do
    name = :"fake_#{System.unique_integer([:positive])}"
    :ets.new(name, [:named_table, :public])
    :ets.insert(name, {:up, self()})
    name
  end

  @doc "Lookups return this owner from now on; no event is sent."
  def own(name, key, pid), do: :ets.insert(name, {{:owner, key}, pid})

  @doc "Lookups return this owner, and subscribers get the event."
  def announce(name, key, pid) do
    own(name, key, pid)
    tell(name, key, pid)
  end

  @doc "Subscribers get the event; lookups do not change."
  def tell(name, key, pid), do: for(subscriber <- subscribers(name, key), do: send(subscriber, {:changed, key, pid}))

  @doc "The next calls of `function` first call `fun`."
  def on(name, function, fun), do: :ets.insert(name, {{:on, function}, fun})

  @doc "Sets the result of `start`, as a function of the key."
  def starts(name, fun), do: :ets.insert(name, {:starts, fun})

  def host(name, pid), do: :ets.insert(name, {:up, pid})

  def subscribers(name, key), do: get(name, {:subscribers, key}, [])

  def count(name, function), do: get(name, {:count, function}, 0)

  def owner(name, key) do
    called(name, :owner)
    pid = get(name, {:owner, key}, nil)
    if pid && Process.alive?(pid) == false && get(name, :stale, false) == false, do: nil, else: pid
  end

  @doc "Lookups also return owners that have ended, as on a lagging replica."
  def stale(name), do: :ets.insert(name, {:stale, true})

  def subscribe(name, key) do
    called(name, :subscribe)
    :ets.insert(name, {{:subscribers, key}, [self() | subscribers(name, key)]})
    :ok
  end

  def unsubscribe(name, key) do
    called(name, :unsubscribe)
    :ets.insert(name, {{:subscribers, key}, List.delete(subscribers(name, key), self())})
    :ok
  end

  def events({:changed, key, pid}), do: [{:registered, key, pid}]
  def events(_other), do: []

  def up(name), do: get(name, :up, nil)

  def start(name, key, start, timeout_ms) do
    called(name, :start)
    get(name, :starts, fn _key, _start, _ms -> {:error, :no_starts} end).(key, start, timeout_ms)
  end

  defp called(name, function) do
    :ets.update_counter(name, {:count, function}, 1, {{:count, function}, 0})
    get(name, {:on, function}, fn -> :ok end).()
  end

  defp get(name, key, default) do
    case :ets.lookup(name, key) do
      [{_key, value}] -> value
      [] -> default
    end
  end
end

defmodule DurableHandoff.Client.FakeServer do
  @moduledoc """
  A server that counts the requests that it handles, in a counter that survives it. The test decides when and
  how it ends.
  """

  use GenServer

  def start(counter), do: GenServer.start(__MODULE__, counter)

  @doc "Blocks the server until `stop/2`. Messages stay in its mailbox meanwhile."
  def block(server), do: :ok = GenServer.call(server, :block)

  @doc "Ends the blocked server with this reason; it handles no further message."
  def stop(server, reason), do: send(server, {:stop, reason})

  @impl true
  def init(counter), do: {:ok, counter}

  @impl true
  def handle_call(:block, from, counter) do
    GenServer.reply(from, :ok)

    receive do
      {:stop, reason} -> {:stop, reason, counter}
      :go_on -> {:noreply, counter}
    end
  end

  def handle_call(:add, _from, counter), do: {:reply, add(counter), counter}
  def handle_call({:add_and_stop, reason}, _from, counter), do: {:stop, reason, add(counter), counter}
  def handle_call({:add_and_exit, reason}, _from, counter), do: {:stop, reason, tap(counter, &add/1)}

  @impl true
  def handle_cast({:add, test}, counter) do
    send(test, {:added, add(counter)})
    {:noreply, counter}
  end

  defp add(counter) do
    :counters.add(counter, 1, 1)
    :counters.get(counter, 1)
  end
end
