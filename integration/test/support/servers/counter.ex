defmodule Servers.Counter do
  @moduledoc """
  A typical durable server: a counter with a nested profile.

  Keys of its `initial_state`: `count:`, `profile:` (any JSON-like map), `permanent:` (default true), `meta:`
  (its public metadata, with atom keys). Calls: `:get`, `:add` (stored at the next sync, which does not come by
  itself), `:add_sync` (stored before the reply), `{:put, key, value}`, `:node`,
  `{:apply, module, function, args}` (inside the callback). Cast: `{:tell, pid}` sends that process
  `{:told, node}`.
  """

  use DurableServer, vsn: 1

  # DurableServer's default is half a minute, and on a busy machine some tests take longer.
  @sync_every_ms 3_600_000

  @doc "A few kilobytes of nested state, different for every `n`."
  @spec profile(integer()) :: map()
  def profile(n) do
    %{
      "user" => %{"id" => n, "name" => "User #{n}", "tags" => ["a", "b", nil, true], "score" => n / 3},
      "messages" => for(i <- 1..20, do: %{"id" => i, "text" => String.duplicate("message #{i} of #{n}. ", 4)})
    }
  end

  def init(state) do
    {:ok, state, permanent: state.permanent, meta: state.meta, sync_every_ms: @sync_every_ms}
  end

  # The keys become strings, as in a JSON store; EKV returns terms unchanged.
  def dump_state(state), do: Map.new(state, fn {name, value} -> {Atom.to_string(name), value} end)

  def load_state(_old_vsn, stored) do
    %{
      count: Map.get(stored, "count", 0),
      profile: Map.get(stored, "profile", %{}),
      permanent: Map.get(stored, "permanent", true),
      meta: for({key, value} <- Map.get(stored, "meta") || %{}, into: %{}, do: {String.to_existing_atom(key), value})
    }
  end

  def handle_call(:get, _from, state), do: {:reply, state.count, state}
  def handle_call(:state, _from, state), do: {:reply, state, state}
  def handle_call(:node, _from, state), do: {:reply, node(), state}
  def handle_call(:add, _from, state), do: add(state, [])
  def handle_call(:add_sync, _from, state), do: add(state, [:sync])
  def handle_call({:put, key, value}, _from, state), do: {:reply, :ok, put_in(state.profile[key], value)}
  def handle_call({:apply, module, function, args}, _from, state), do: {:reply, apply(module, function, args), state}
  def handle_call({:stop, reason}, _from, state), do: {:stop, reason, :ok, state}
  def handle_call(:crash, _from, _state), do: raise("told to crash")

  def handle_cast({:tell, pid}, state) do
    send(pid, {:told, node()})
    {:noreply, state}
  end

  defp add(state, ending) do
    state = %{state | count: state.count + 1}
    List.to_tuple([:reply, state.count, state | ending])
  end
end
