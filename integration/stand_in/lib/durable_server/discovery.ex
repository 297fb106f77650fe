defmodule DurableServer.Discovery do
  @moduledoc """
  One sweep over the store: permanent servers without a running owner are started here.

  Nodes sweep independently. If several try to start the same server, the conditional claim lets only one
  succeed. A valid reservation is respected, and so is a running owner until its heartbeat has expired.
  """

  alias DurableServer.{Config, Heartbeats, Object, Ownership, Starter, Sticky, StorageBackend, StoredState}

  @at_a_time 20

  @spec sweep(Config.t()) :: :ok
  def sweep(config) do
    config
    |> stored()
    |> Task.async_stream(&recover(config, &1), max_concurrency: @at_a_time, ordered: false, timeout: :infinity)
    |> Stream.run()
  end

  defp stored(config) do
    heartbeats = Heartbeats.storage_key(config, "")
    opts = [consistent: false, include_objects: true, error_handler: fn _reason -> :halt end]

    config.storage_backend
    |> StorageBackend.list_all_objects_stream(config.prefix, opts)
    |> Stream.map(&String.replace_prefix(&1.key, config.prefix, ""))
    |> Stream.reject(&String.starts_with?(config.prefix <> &1, heartbeats))
    |> Stream.filter(&(Group.lookup(config.name, &1) == nil))
  end

  defp recover(config, key) do
    with {:ok, %StoredState{meta: meta} = stored} <-
           Object.read(config.storage_backend, Config.storage_key(config, key)),
         true <- Ownership.abandoned?(config, meta),
         true <- place_open?(config, meta) do
      Starter.start(config.name, {meta.module, key: key}, preloaded: stored)
    end
  end

  defp place_open?(_config, %{sticky_placement: levels}) when levels in [nil, []], do: true

  defp place_open?(config, meta) do
    elapsed = max(System.system_time(:millisecond) - meta.last_heartbeat_at, 0)
    env_vars = Sticky.env_vars(config.sticky_placement)
    Sticky.open_level(meta.sticky_placement, env_vars, config.sticky_placement[meta.module], elapsed) != nil
  end
end
