defmodule DurableServer.Options do
  @moduledoc "The options of `DurableServer.Supervisor`. An unknown one, or a value that cannot be, raises `ArgumentError`."

  @defaults [
    name: nil,
    prefix: nil,
    backend: nil,
    heartbeat_backend: nil,
    max_children: :infinity,
    discovery_interval_ms: nil,
    initial_discovery_delay_ms: {1_000, 6_000},
    heartbeat_interval_ms: nil,
    heartbeat_meta: nil,
    heartbeat_future_skew_tolerance_ms: 5_000,
    heartbeat_staleness_threshold_ms: 30_000,
    max_cpu: nil,
    max_memory: nil,
    max_disk: nil,
    placement_region: nil,
    placement_erpc_timeout_same_region_ms: 3_000,
    placement_erpc_timeout_cross_region_ms: 8_000,
    init_info: %{},
    sticky_placement: %{},
    graceful_shutdown_timeout_ms: 30_000,
    graceful_shutdown_total_timeout_ms: 55_000,
    graceful_shutdown_concurrency: 50,
    restart_start_timeout_ms: 30_000
  ]

  @least_threshold_ms 2_000

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

    check_limits!(options.max_children)
    check_intervals!(options)
    # Asked before there is a supervisor, so that a function that cannot be called is found at start.
    if is_function(options.heartbeat_meta, 0), do: options.heartbeat_meta.()
    options
  end

  defp check_limits!(limits) when limits in [nil, :infinity] or is_map(limits), do: :ok
  defp check_limits!(total) when is_integer(total) and total > 0, do: :ok
  defp check_limits!(other), do: raise(ArgumentError, "option :max_children must be positive, got: #{inspect(other)}")

  defp check_intervals!(options) do
    threshold = options.heartbeat_staleness_threshold_ms

    unless is_integer(threshold) and threshold > @least_threshold_ms,
      do: raise(ArgumentError, "heartbeat_staleness_threshold_ms must be greater than #{@least_threshold_ms}")

    unless delay?(options.initial_discovery_delay_ms),
      do: raise(ArgumentError, "initial_discovery_delay_ms must be a non-negative integer or {min_ms, max_ms}")

    if (options.heartbeat_interval_ms || 0) > div(threshold, 2),
      do: raise(ArgumentError, "heartbeat_interval_ms must be at most half of heartbeat_staleness_threshold_ms")
  end

  defp delay?({low, high}), do: is_integer(low) and is_integer(high) and 0 <= low and low <= high
  defp delay?(delay), do: is_integer(delay) and delay >= 0
end
