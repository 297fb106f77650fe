defmodule DurableHandoff.Heartbeat do
  @moduledoc false
  # Adds facts about this node to its heartbeats, under the key `"durable_handoff"`:
  #
  #   * `"generation"`: its release (option `generation`);
  #   * `"started_at"`: when its supervisor started, wall-clock milliseconds;
  #   * `"servers"`: how many servers run there.
  #
  # While the node is cordoned (`DurableHandoff.cordon/1`) they also say `"draining" => true`.
  #
  # Guarantee: the user's own `heartbeat_meta`, a map or a function, has the same effect as without this
  # library. All its keys are kept. If the function raises or returns an invalid value, the effect is the
  # same, too. The code here never raises.

  alias DurableHandoff.Host

  @key "durable_handoff"

  @doc "`host_options` with these facts added to `heartbeat_meta`."
  @spec add(keyword(), String.t() | nil) :: keyword()
  def add(host_options, generation) do
    name = Keyword.get(host_options, :name)

    case Keyword.get(host_options, :heartbeat_meta) do
      meta when meta == nil or is_map(meta) ->
        Keyword.put(host_options, :heartbeat_meta, fn -> with_ours(meta || %{}, name, generation) end)

      meta when is_function(meta, 0) ->
        Keyword.put(host_options, :heartbeat_meta, fn -> with_ours(meta.(), name, generation) end)

      # DurableServer rejects the invalid value with a reason.
      _odd ->
        host_options
    end
  end

  defp with_ours(%{} = meta, name, generation) do
    meta = Map.put_new(meta, @key, ours(name, generation))
    if Host.Mark.mark(name) == :cordoned, do: meta |> Map.delete(:draining) |> Map.put("draining", true), else: meta
  end

  defp with_ours(odd, _name, _generation), do: odd

  # DurableServer calls the function once before it is up, to check it. Counting servers at that time would
  # log an error, because its tables do not exist yet.
  defp ours(name, generation) do
    if Host.whereis(name),
      do: %{"generation" => generation, "started_at" => Host.started_at_ms(name), "servers" => Host.count(name)},
      else: %{"generation" => generation, "started_at" => nil, "servers" => 0}
  end
end
