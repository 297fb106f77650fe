defmodule DurableServer.Capacity do
  @moduledoc """
  How many servers run on this node, and how many may. Limits are checked while the dynamic supervisor starts
  a child, one at a time, so they are never exceeded.
  """

  alias DurableServer.Config

  @doc "nil without limits, else the current number and the limit of each kind."
  @spec current(Config.t()) :: %{(:total | module()) => %{current: non_neg_integer(), limit: pos_integer()}} | nil
  def current(config) do
    case limits(config.max_children) do
      limits when limits == %{} -> nil
      limits -> Map.new(limits, fn {what, limit} -> {what, %{current: count(config, what), limit: limit}} end)
    end
  end

  @doc "Whether one more server of `module` fits, not counting the calling process."
  @spec check(Config.t(), module()) :: :ok | {:error, {:capacity_limit, :max_children_total | :max_children_module}}
  def check(config, module) do
    limits = limits(config.max_children)

    Enum.find_value([:total, module], :ok, fn what ->
      with %{^what => limit} <- limits, true <- count(config, what) >= limit do
        {:error, {:capacity_limit, if(what == :total, do: :max_children_total, else: :max_children_module)}}
      else
        _room -> nil
      end
    end)
  end

  @doc "The configured resource limits as they appear in heartbeats; the stand-in measures no usage."
  @spec resources(Config.t()) :: %{atom() => number()} | nil
  def resources(config) do
    limits =
      for {key, value} <- [max_cpu: config.max_cpu, max_memory: config.max_memory, max_disk: config.max_disk],
          value != nil,
          do: {key, percent(value)}

    if limits == [], do: nil, else: Map.new(limits)
  end

  defp limits(:infinity), do: %{}
  defp limits(nil), do: %{}
  defp limits(total) when is_integer(total), do: %{total: total}
  defp limits(%{} = limits), do: limits

  defp percent({value, _mount}), do: value
  defp percent(value), do: value

  defp count(config, what) do
    module = if what == :total, do: :_, else: what
    Registry.count_select(config.server_registry, [{{:_, :_, module}, [], [true]}])
  end
end
