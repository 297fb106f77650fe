defmodule DurableHandoff.Executor.Embedded do
  @moduledoc false
  # The engine in this VM. Its results depend only on its arguments and its state: it never waits and reads no
  # clock.

  alias DurableHandoff.Native

  # Up to this many servers a poll, or an end that another engine has decided, takes far less than a millisecond, so it
  # may run on a normal scheduler. A dirty scheduler adds up to 50 microseconds to each call.
  @small_servers 5_000
  @small_nodes 50

  @type t :: {Native.engine(), small? :: boolean()}

  @spec start(map(), [tuple()], Native.view(), integer()) :: {:ok, t()} | {:error, term()}
  def start(config, servers, view, now_us) do
    with {:ok, engine} <- Native.engine_new(config, servers, view, now_us) do
      small? = length(servers) <= @small_servers and length(view.nodes) <= @small_nodes
      {:ok, {engine, small?}}
    end
  end

  @spec poll(t(), integer()) :: {:ok, [Native.action()], :infinity | integer()} | {:error, term()}
  def poll({engine, true}, now_us), do: Native.engine_poll(engine, now_us)
  def poll({engine, false}, now_us), do: Native.engine_poll_dirty(engine, now_us)

  @spec follow(t(), integer(), Native.action()) :: {:ok, Native.action()} | {:error, term()}
  def follow({engine, false}, now_us, :finish), do: Native.engine_follow_dirty(engine, now_us, :finish)
  def follow({engine, _small?}, now_us, action), do: Native.engine_follow(engine, now_us, action)

  @spec event(t(), integer(), Native.event()) :: :ok | {:error, term()}
  def event({engine, _small?}, now_us, event), do: Native.engine_event(engine, now_us, event)

  @spec end_within(t(), integer(), non_neg_integer()) :: :ok | {:error, term()}
  def end_within({engine, _small?}, now_us, span_us), do: Native.engine_end_within(engine, now_us, span_us)

  @spec coordinator_lost(t(), integer()) :: :ok | {:error, term()}
  def coordinator_lost({engine, _small?}, now_us), do: Native.engine_coordinator_lost(engine, now_us)

  @spec view(t(), integer(), Native.view()) :: :ok | {:error, term()}
  def view({engine, _small?}, now_us, view), do: Native.engine_view(engine, now_us, view)

  @spec progress(t()) :: map()
  def progress({engine, _small?}), do: Native.engine_progress(engine)

  @spec report(t(), integer()) :: map()
  def report({engine, _small?}, now_us), do: Native.engine_report(engine, now_us)

  @spec results(t()) :: binary()
  def results({engine, _small?}), do: Native.engine_results(engine)
end
