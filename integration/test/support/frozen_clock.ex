defmodule FrozenClock do
  @moduledoc """
  The library's clock on a separate node, set by a test. Timers still run, but the clock changes only when the
  test sets it.
  """

  @key {__MODULE__, :us}

  @doc "Stops the clock of `node`."
  @spec freeze(node()) :: :ok
  def freeze(node), do: Cluster.call(node, __MODULE__, :install, [])

  @doc "Sets the clock of `node` forward."
  @spec advance(node(), pos_integer()) :: :ok
  def advance(node, ms), do: Cluster.call(node, __MODULE__, :add, [ms * 1_000])

  @doc false
  def install do
    :persistent_term.put(@key, DurableHandoff.Clock.now_us())
    Code.put_compiler_option(:ignore_module_conflict, true)
    {:module, _name, _binary, _term} = Module.create(DurableHandoff.Clock, clock(), Macro.Env.location(__ENV__))
    :ok
  end

  @doc false
  def add(us), do: :persistent_term.put(@key, now_us() + us)

  @doc false
  def now_us, do: :persistent_term.get(@key)

  defp clock do
    quote do
      def now_us, do: unquote(__MODULE__).now_us()
      def monotonic_time(us), do: System.convert_time_unit(us, :microsecond, :native)
      def after_ms(:infinity), do: :infinity
      def after_ms(timeout_ms), do: now_us() + timeout_ms * 1_000
      def until_ms(:infinity), do: :infinity
      def until_ms(instant_us), do: max(div(instant_us - now_us() + 999, 1_000), 0)
    end
  end
end
