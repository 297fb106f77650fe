defmodule DurableServer.Options do
  @moduledoc "The options of `DurableServer.Supervisor`. An unknown one raises `ArgumentError`."

  @defaults [
    name: nil,
    prefix: nil,
    backend: nil,
    max_children: :infinity,
    discovery_interval_ms: nil,
    heartbeat_interval_ms: nil,
    heartbeat_meta: nil,
    heartbeat_future_skew_tolerance_ms: 5_000,
    max_cpu: nil,
    max_memory: nil,
    max_disk: nil,
    placement_region: nil,
    placement_erpc_timeout_same_region_ms: 3_000,
    placement_erpc_timeout_cross_region_ms: 8_000,
    init_info: nil,
    sticky_placement: %{},
    graceful_shutdown_timeout_ms: 30_000,
    graceful_shutdown_total_timeout_ms: 55_000,
    restart_start_timeout_ms: 30_000
  ]

  @doc "All options with their defaults filled in."
  @spec validate!(keyword()) :: map()
  def validate!(opts) do
    options = opts |> Keyword.validate!(@defaults) |> Map.new()

    for name <- [:name, :prefix, :backend],
        is_nil(options[name]),
        do: raise(ArgumentError, "option #{inspect(name)} is required")

    unless is_atom(options.name),
      do: raise(ArgumentError, "option :name must be an atom, got: #{inspect(options.name)}")

    unless match?({module, opts} when is_atom(module) and is_list(opts), options.backend),
      do: raise(ArgumentError, "option :backend must be {module, opts}, got: #{inspect(options.backend)}")

    options
  end
end
