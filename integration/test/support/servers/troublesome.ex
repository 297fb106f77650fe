defmodule Servers.Troublesome do
  @moduledoc """
  A durable server that fails at a given place on a given node.

      Servers.Troublesome.arm(target, "key", :init, :raise)

  Its `initial_state` is `%{key: key, count: n}`; `arm/4` refers to that key. `init` may `:raise`, `:ignore`,
  `:stop` or `:hang`; `terminate` may `:raise` or `:hang`. A hanging server continues after `disarm/3`, or as
  it is armed then.

  Calls: `:get`, `:add`; `:block` answers at once and then handles nothing more until
  `disarm(node, key, :call)`; `{:add, test, ending}` counts, sends `test` a `{:handled, node}` and ends with
  `:sync` (as a reply that is stored first), `{:stop, reason}` (without a reply) or `{:exit, reason}`.
  """

  use DurableServer, vsn: 1

  @type place :: :init | :terminate | :call

  @doc "Makes `place` fail in this way for the server `key` on `node`."
  @spec arm(node(), String.t(), place(), atom()) :: :ok
  def arm(node, key, place, trouble), do: :erpc.call(node, :persistent_term, :put, [{__MODULE__, key, place}, trouble])

  @doc "Undoes `arm/4`. A hanging server continues."
  @spec disarm(node(), String.t(), place()) :: boolean()
  def disarm(node, key, place), do: :erpc.call(node, :persistent_term, :erase, [{__MODULE__, key, place}])

  @doc "Whether the server hangs at `place` now."
  @spec hangs?(node(), String.t(), place()) :: boolean()
  def hangs?(node, key, place),
    do: :erpc.call(node, :persistent_term, :get, [{__MODULE__, key, {:hangs, place}}, false])

  @doc "The keys of the servers on `node` that hang at `place` now."
  @spec hanging(node(), place()) :: [String.t()]
  def hanging(node, place) do
    for {{__MODULE__, key, {:hangs, ^place}}, true} <- :erpc.call(node, :persistent_term, :get, []), do: key
  end

  @doc "Undoes all calls of `arm/4` on `node`."
  @spec disarm_all(node()) :: :ok
  def disarm_all(node) do
    for {{__MODULE__, _key, _place} = armed, _trouble} <- :erpc.call(node, :persistent_term, :get, []),
        do: :erpc.call(node, :persistent_term, :erase, [armed])

    :ok
  end

  # Not init/1 itself: the real DurableServer imports a function of that name.
  def init(state), do: start(state)

  defp start(%{key: key} = state) do
    case armed(key, :init) do
      :raise -> raise "told to raise"
      :ignore -> :ignore
      :stop -> {:stop, :told_to_stop}
      :hang -> key |> hang(:init, state) |> start()
      nil -> {:ok, state, permanent: true}
    end
  end

  # Also of an empty initial state, so that a server that is created anew by mistake runs.
  def dump_state(state), do: %{"key" => Map.get(state, :key), "count" => Map.get(state, :count, 0)}

  def load_state(_old_vsn, stored), do: %{key: stored["key"], count: Map.get(stored, "count", 0)}

  def handle_call(:get, _from, state), do: {:reply, state.count, state}
  def handle_call(:add, _from, state), do: {:reply, state.count + 1, %{state | count: state.count + 1}}

  def handle_call({:add, test, ending}, _from, state) do
    state = %{state | count: state.count + 1}
    send(test, {:handled, node()})

    case ending do
      :sync -> {:reply, state.count, state, :sync}
      {:stop, reason} -> {:stop, reason, state}
      {:exit, reason} -> exit(reason)
    end
  end

  def handle_call(:block, from, state) do
    arm(node(), state.key, :call, :hang)
    GenServer.reply(from, :ok)
    hang(state.key, :call, {:noreply, state})
  end

  def terminate(_reason, state) do
    case armed(state.key, :terminate) do
      :raise -> raise "told to raise"
      :hang -> hang(state.key, :terminate, :ok)
      nil -> :ok
    end
  end

  defp armed(key, place), do: :persistent_term.get({__MODULE__, key, place}, nil)

  defp hang(key, place, result) do
    :persistent_term.put({__MODULE__, key, {:hangs, place}}, true)
    await_disarm(key, place)
    :persistent_term.erase({__MODULE__, key, {:hangs, place}})
    result
  end

  defp await_disarm(key, place) do
    receive do
    after
      10 -> if armed(key, place) == :hang, do: await_disarm(key, place)
    end
  end
end
