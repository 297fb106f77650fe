defmodule DurableServer.Boot do
  @moduledoc """
  The start of one server, in its own process: read, claim, load, init, store.

  A start that fails leaves the store as it found it; a reservation in particular stays valid, so whoever holds it may try
  the next node. Storage cost: a read (none when the object comes with the request) and two conditional writes.
  """

  alias DurableServer.{Callbacks, Config, Meta, Object, Ownership, Sticky, StoredState}

  @typedoc """
  `preloaded`: the object as read by whoever asks. `reservation`: the node in whose name a reserved server may be started.
  """
  @type request :: %{
          config: Config.t(),
          module: module(),
          key: String.t(),
          initial_state: map(),
          preloaded: StoredState.t() | nil,
          reservation: String.t() | nil
        }

  @type booted :: %{stored: StoredState.t(), user: map(), opts: keyword()}

  @spec run(request()) :: {:ok, booted()} | :ignore | {:error, term()}
  def run(request) do
    with {:ok, found} <- find(request),
         :ok <- Ownership.check(request.config, found && found.meta, request.reservation),
         {:ok, claimed} <- claim(request, found) do
      case start(request, claimed) do
        {:ok, booted} ->
          {:ok, booted}

        failure ->
          give_back(request, found, claimed)
          failure
      end
    end
  end

  defp find(%{preloaded: %StoredState{} = stored}), do: {:ok, stored}

  defp find(request) do
    case Object.read(request.config.storage_backend, storage_key(request)) do
      {:ok, stored} -> {:ok, stored}
      {:error, :not_found} -> {:ok, nil}
      {:error, reason} -> {:error, reason}
    end
  end

  defp claim(request, found) do
    %{config: config, module: module} = request
    levels = Sticky.levels(config.sticky_placement[module])
    meta = Meta.claimed(found && found.meta, config, module, self(), levels, now())
    claimed = if found, do: %{found | meta: meta}, else: first(request, meta)
    Object.write(config.storage_backend, storage_key(request), claimed)
  end

  defp first(%{module: module} = request, meta),
    do: %StoredState{state: module.dump_state(request.initial_state), meta: meta, vsn: module.__durable_server__(:vsn)}

  defp start(%{module: module, config: config} = request, claimed) do
    with {:ok, readable} <- Object.through_store(config.storage_backend, claimed),
         state = module.load_state(readable.vsn, readable.state),
         {:ok, state, opts} <- Callbacks.init(module, state, info(request)) do
      meta = Meta.started(claimed.meta, Keyword.get(opts, :permanent, false), now())
      stored = %{claimed | state: module.dump_state(state), vsn: module.__durable_server__(:vsn), meta: meta}

      with {:ok, stored} <- Object.write(config.storage_backend, storage_key(request), stored),
           do: {:ok, %{stored: stored, user: state, opts: opts}}
    else
      {:stop, reason} -> {:error, reason}
      other -> other
    end
  rescue
    error -> {:error, {error, __STACKTRACE__}}
  catch
    kind, reason -> {:error, {kind, reason}}
  end

  # Conditional on our own claim: whoever took over meanwhile keeps what it wrote.
  defp give_back(request, nil, claimed),
    do: Object.delete(request.config.storage_backend, storage_key(request), claimed)

  defp give_back(request, found, claimed),
    do: Object.write(request.config.storage_backend, storage_key(request), %{found | etag: claimed.etag})

  defp info(%{config: config, key: key}),
    do: %{key: key, supervisor: config.name, prefix: config.prefix, init_info: config.init_info}

  defp storage_key(request), do: Config.storage_key(request.config, request.key)
  defp now, do: System.system_time(:millisecond)
end
