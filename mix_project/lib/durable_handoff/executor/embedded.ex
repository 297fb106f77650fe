defmodule DurableHandoff.Executor.Embedded do
  @moduledoc false
  # The engine in this VM. Everything it answers is a value: it never waits and keeps no clock.

  @behaviour DurableHandoff.Executor

  alias DurableHandoff.Native

  # Up to here a poll stays far below a millisecond, which is what a normal scheduler may be kept. A dirty one costs each poll
  # up to 50 microseconds.
  @small_servers 5_000
  @small_nodes 50

  @impl true
  def start(config, servers, view, now_us) do
    with {:ok, engine} <- Native.engine_new(config, servers, view, now_us) do
      small? = length(servers) <= @small_servers and length(view.nodes) <= @small_nodes
      {:ok, {engine, small?}}
    end
  end

  @impl true
  def poll({engine, true}, now_us), do: Native.engine_poll(engine, now_us)
  def poll({engine, false}, now_us), do: Native.engine_poll_dirty(engine, now_us)

  @impl true
  def event({engine, _small?}, now_us, event), do: Native.engine_event(engine, now_us, event)

  @impl true
  def view({engine, _small?}, now_us, view), do: Native.engine_view(engine, now_us, view)

  @impl true
  def progress({engine, _small?}), do: Native.engine_progress(engine)

  @impl true
  def report({engine, _small?}, now_us), do: Native.engine_report(engine, now_us)
end
