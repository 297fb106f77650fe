defmodule Scribe do
  @moduledoc """
  A durable server for tests: `{:do, fun}` as call, cast or message runs `fun` on its state and returns its
  result. The supervisor's `init_info` maps keys to the options that `init/2` returns.
  """

  use DurableServer, vsn: 2

  @impl true
  def init(state, info) do
    {:ok, Map.put(state, :info, info), Map.get(info, info.key, [])}
  end

  @impl true
  def dump_state(state), do: %{"n" => state.n}

  @impl true
  def load_state(old_vsn, %{"n" => n}), do: %{n: n, old_vsn: old_vsn}

  @impl true
  def handle_call({:do, fun}, _from, state), do: fun.(state)

  @impl true
  def handle_cast({:do, fun}, state), do: fun.(state)

  @impl true
  def handle_info({:do, fun}, state), do: fun.(state)

  @impl true
  def handle_continue({:do, fun}, state), do: fun.(state)
end
