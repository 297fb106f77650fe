defmodule DurableHandoff.EngineTerms do
  @moduledoc """
  Inputs of the engine for tests that act as the drain: one module, no sticky placement, nodes without load or
  limits, in the form of `Snapshot` and `Host.View`.
  """

  alias DurableHandoff.Options

  @config Map.merge(Options.engine(Options.new!(prefer: :none)), %{
            timeout_ms: 30_000,
            attempt_timeout_ms: 15_000,
            wait_for_target_ms: 0,
            wait_for_lost_ms: 0,
            source: %{name: "source@h", started_at_ms: nil, generation: nil, region: nil},
            stickies: [[]],
            modules: 1,
            future_skew_ms: 5_000,
            max_age_ms: 50_000
          })

  @doc "A configuration with the changes in `given`."
  @spec config(map()) :: map()
  def config(given), do: Map.merge(@config, given)

  @doc "A view in which the nodes `names` are connected and empty."
  @spec view([String.t()]) :: map()
  def view(names) do
    nodes =
      for name <- names do
        %{
          name: name,
          stamp_ms: 1_000_000,
          counted_at_ms: nil,
          missing: [],
          started_at_ms: nil,
          generation: nil,
          servers: nil,
          region: nil,
          draining: false,
          connected: true,
          capacity: [],
          resources: nil,
          env: []
        }
      end

    %{now_ms: 1_000_000, nodes: nodes}
  end
end
