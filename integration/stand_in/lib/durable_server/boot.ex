defmodule DurableServer.Boot do
  @moduledoc """
  The start of one server, in its own process: read, load, claim, init, store.

  The claim ends a reservation, and `init` runs after it. So an `init` that raises leaves an object that a
  dead process owns. An `init` that returns `:ignore`, or a failed write after `init`, leaves a stopped one.
  Cost: a read (none if the object comes with the request, two if it had an owner before) and two conditional
  writes.
  """

  alias DurableServer.{Callbacks, Config, Meta, Object, Ownership, StorageBackend, Sticky, StoredState}

  @typedoc """
  `preloaded`: the object as the requesting node has read it. `reservation`: the node on whose behalf a
  reserved server may be started.
  """
  @type request :: %{
          config: Config.t(),
          module: module(),
          key: String.t(),
          initial_state: map(),
          preloaded: StoredState.t() | nil,
          reservation: String.t() | nil
        }

  @type booted :: %{stored: StoredState.t(), user: map(), opts: keyword(), continue: tuple() | nil}

  @doc "Raises what `init` and `load_state` raise."
  @spec run(request()) :: {:ok, booted()} | :ignore | {:error, term()}
  def run(request) do
    with {:ok, found} <- find(request),
         {:ok, user, old} <- load(request, found),
         {:ok, claimed} <- claim(request, user, old) do
      init(request, user, claimed)
    end
  end

  @doc "Writes the state after `init`. The server is already registered."
  @spec store(request(), booted()) :: {:ok, StoredState.t()} | {:error, term()}
  def store(request, %{stored: stored, user: user, opts: opts}) do
    meta = %{stored.meta | permanent: Keyword.get(opts, :permanent, false), last_heartbeat_at: now()}
    started = %{stored | state: request.module.dump_state(user), meta: meta}

    with {:error, reason} <- Object.write(backend(request), storage_key(request), started) do
      repair(request, started)
      {:error, reason}
    end
  end

  defp find(%{preloaded: %StoredState{} = stored}), do: {:ok, stored}

  defp find(request) do
    case Object.read(backend(request), storage_key(request), consistent: false) do
      {:ok, stored} -> {:ok, stored}
      {:error, _reason} -> {:ok, nil}
    end
  end

  defp load(request, nil), do: load_initial(request, nil)

  defp load(request, found) do
    with :ok <- Ownership.check(request.config, found.meta, request.reservation),
         {:ok, found} <- read_again(request, found) do
      if found == nil or found.meta.status == :deleting,
        do: load_initial(request, found),
        else: {:ok, request.module.load_state(found.vsn, found.state), found}
    end
  end

  # An inconsistent read may return a previous owner.
  defp read_again(%{preloaded: %StoredState{}}, found), do: {:ok, found}

  defp read_again(request, _found) do
    case Object.read(backend(request), storage_key(request)) do
      {:ok, stored} ->
        with :ok <- Ownership.check(request.config, stored.meta, request.reservation), do: {:ok, stored}

      {:error, :not_found} ->
        {:ok, nil}

      {:error, reason} ->
        {:error, reason}
    end
  end

  defp load_initial(%{module: module} = request, found) do
    with {:ok, decoded} <- Object.through_store(backend(request), module.dump_state(request.initial_state)) do
      {:ok, module.load_state(nil, decoded), found && %{found | meta: nil}}
    end
  end

  defp claim(%{config: config, module: module} = request, user, old) do
    levels = Sticky.levels(config.sticky_placement[module])
    meta = Meta.claimed(old && old.meta, config, module, self(), levels, now())

    Object.claim(backend(request), storage_key(request), %StoredState{
      state: module.dump_state(user),
      meta: meta,
      vsn: module.__durable_server_config__().vsn,
      etag: old && old.etag
    })
  end

  defp init(%{module: module} = request, user, claimed) do
    case Callbacks.init(module, user, info(request)) do
      {:ok, user, opts, continue} ->
        {:ok, %{stored: claimed, user: user, opts: opts, continue: continue}}

      :ignore ->
        _stored_or_not = Object.write(backend(request), storage_key(request), stopped(claimed))
        :ignore

      {:error, reason} ->
        {:error, reason}
    end
  end

  # Conditional on our own claim: an owner that took over meanwhile keeps what it wrote.
  defp repair(request, started) do
    repaired = fn %{body: %StoredState{meta: meta}} ->
      if {meta.pid, meta.node_ref} == {started.meta.pid, started.meta.node_ref},
        do: {:ok, stopped(started)},
        else: {:error, :ownership_mismatch}
    end

    StorageBackend.update_object(backend(request), storage_key(request), repaired, max_retries: 0)
  end

  defp stopped(stored), do: %{stored | meta: Meta.stopped(stored.meta, :stopped_graceful, now())}

  defp info(%{config: config, key: key}) do
    facts = %{
      key: key,
      supervisor: config.name,
      task_supervisor: config.task_supervisor,
      dynamic_supervisor: config.dynamic_supervisor
    }

    Map.merge(facts, config.init_info)
  end

  defp backend(request), do: request.config.storage_backend
  defp storage_key(request), do: Config.storage_key(request.config, request.key)
  defp now, do: System.system_time(:millisecond)
end
