defmodule DurableServer.Removal do
  @moduledoc "Deletes and cordons servers, whether they run or not."

  alias DurableServer.{Config, Meta, Object, Ownership, Server, StorageBackend, StoredState}

  @doc "Makes the process that runs the key do it. `{:error, :noproc}` if none runs."
  @spec ask(atom(), String.t(), :delete | :cordon, timeout()) :: :ok | {:error, term()}
  def ask(supervisor, key, what, timeout) do
    case DurableServer.Supervisor.lookup(supervisor, key) do
      {pid, _meta} -> await(pid, what, timeout)
      nil -> {:error, :noproc}
    end
  end

  defp await(pid, what, timeout) do
    monitor = Process.monitor(pid)
    ref = make_ref()
    send(pid, {:durable, {request(what), ref, self()}})

    receive do
      {:DOWN, ^monitor, :process, _pid, :noproc} ->
        {:error, :noproc}

      {:DOWN, ^monitor, :process, _pid, _reason} ->
        receive do
          {_complete, ^ref, result} -> result
        after
          0 -> {:error, :noproc}
        end
    after
      timeout ->
        Process.demonitor(monitor, [:flush])
        {:error, :timeout}
    end
  after
    flush()
  end

  defp request(:delete), do: :delete_request
  defp request(:cordon), do: :cordon_request

  defp flush do
    receive do
      {progress, _ref} when progress in [:delete_in_progress, :cordon_in_progress] -> flush()
    after
      0 -> :ok
    end
  end

  @doc "Deletes the object of a server that does not run: a tombstone first."
  @spec delete(Config.t(), String.t()) :: :ok | {:error, term()}
  def delete(%{storage_backend: backend} = config, key) do
    storage_key = Config.storage_key(config, key)

    with {:ok, _stored} <- Object.read(backend, storage_key),
         {:ok, %{etag: etag}} <-
           StorageBackend.update_object(backend, storage_key, &bury(config, &1), timeout: :infinity, max_retries: 0),
         :ok <- StorageBackend.delete_object(backend, storage_key, etag: etag) do
      :ok
    else
      {:error, :not_found} -> :ok
      {:error, reason} -> {:error, reason}
    end
  end

  defp bury(config, %{body: %StoredState{meta: meta} = stored}) do
    case Ownership.check(config, meta, meta.restart_attempt_node) do
      {:error, {:already_started, owner}} -> {:error, {:locked, owner}}
      _free -> {:ok, %{stored | state: %{}, meta: Server.tombstone()}}
    end
  end

  @doc "Cordons the object of a server that does not run."
  @spec cordon(Config.t(), String.t()) :: :ok | {:error, term()}
  def cordon(%{storage_backend: backend} = config, key) do
    storage_key = Config.storage_key(config, key)

    with {:ok, stored} <- Object.read(backend, storage_key),
         meta = Meta.release(%{stored.meta | status: :cordoned}),
         {:ok, _object} <- StorageBackend.put_object(backend, storage_key, %{stored | meta: meta}, etag: stored.etag),
         do: :ok
  end
end
