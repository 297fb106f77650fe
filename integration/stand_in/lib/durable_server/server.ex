defmodule DurableServer.Server do
  @moduledoc """
  The process of one durable server.

  It answers its starter only when it is fully up: claimed, loaded, initialised, registered and stored. Its
  last action is a conditional write of its state, after the user's `terminate/2`. The process ends even if
  that write fails.

  A conflict in any other write means that another owner has the object: the server then ends with
  `{:shutdown, {:durable, {:fatal_exit, text}}}` and writes nothing more. Any other failure of a write is
  logged.
  """

  use GenServer

  require Logger

  alias DurableServer.{Boot, Callbacks, Capacity, Config, GroupMeta, Meta, Object, StorageBackend}

  @sync_every_ms 30_000

  @type result :: {:ok, {pid(), map() | nil}} | :ignore | {:error, term()}

  defstruct [:config, :key, :module, :user, :stored, :opts, :user_meta, :sync_timer, :final, :asked_by]

  @doc "A child that tells `starter` (a process alias) how its start ended."
  @spec child_spec({Boot.request(), reference()}) :: Supervisor.child_spec()
  def child_spec({request, _starter} = arg) do
    %{
      id: DurableServer,
      start: {__MODULE__, :start_link, [arg]},
      restart: :temporary,
      shutdown: request.config.graceful_shutdown_timeout_ms,
      modules: [DurableServer]
    }
  end

  @spec start_link({Boot.request(), reference()}) :: GenServer.on_start()
  def start_link(arg), do: GenServer.start_link(__MODULE__, arg)

  # Runs while the dynamic supervisor waits, so starts are admitted one at a time; storage is left to
  # `handle_continue`.
  @impl true
  def init({%{config: config} = request, starter}) do
    Process.flag(:trap_exit, true)

    with :ok <- if(Config.draining?(config), do: {:error, {:capacity_limit, :node_shutting_down}}, else: :ok),
         :ok <- Capacity.check(config, request.module),
         {:ok, _owner} <- Registry.register(config.server_registry, request.key, request.module) do
      {:ok, nil, {:continue, {__MODULE__, request, starter}}}
    else
      refusal ->
        tell(starter, refusal)
        :ignore
    end
  end

  # An exception in `init` ends the process. The starter learns of it from the process's end.
  @impl true
  def handle_continue({__MODULE__, request, starter}, nil) do
    with {:ok, booted} <- Boot.run(request),
         :ok <- register(request, Keyword.get(booted.opts, :meta)),
         {:ok, stored} <- Boot.store(request, booted) do
      state = request |> started(booted, stored) |> sync_later()
      tell(starter, {:ok, {self(), state.user_meta}})
      if booted.continue, do: {:noreply, state, booted.continue}, else: {:noreply, state}
    else
      :ignore ->
        tell(starter, :ignore)
        {:stop, {:shutdown, {:durable, :ignored}}, nil}

      {:error, reason} ->
        tell(starter, {:error, reason})
        {:stop, {:shutdown, {:durable, {:init_failed, reason}}}, nil}
    end
  end

  def handle_continue(term, state), do: settle(state.module.handle_continue(term, state.user), state)

  @impl true
  def handle_call({:durable, :get_etag}, _from, state), do: {:reply, {:ok, state.stored.etag}, state}
  def handle_call({:durable, :await_start}, _from, state), do: {:reply, state.user_meta, state}

  # Replies after `terminate/2`, as for every stop with a reply.
  def handle_call({:durable, {:stop_with_status, status, reason}}, _from, state),
    do: {:stop, reason, :ok, %{state | final: {:status, status}}}

  def handle_call({:durable, {:stop_for_rehome, node_str, ttl_ms, reason}}, _from, state) do
    meta = Meta.reserve(state.stored.meta, node_str, ttl_ms, now())
    {:stop, reason, :ok, %{state | stored: %{state.stored | meta: meta}, final: {:status, :stopped_graceful}}}
  end

  def handle_call(message, from, state), do: settle(state.module.handle_call(message, from, state.user), state)

  @impl true
  def handle_cast(message, state), do: settle(state.module.handle_cast(message, state.user), state)

  @impl true
  def handle_info({:durable, {:sync_and_stop, _reason}}, state),
    do: {:stop, :normal, %{state | final: {:status, :stopped_graceful}}}

  def handle_info({:durable, :sync}, state) do
    {:noreply, state |> sync() |> sync_later()}
  end

  def handle_info({:durable, {:delete_request, ref, from}}, state) do
    send(from, {:delete_in_progress, ref})
    {:stop, {:shutdown, :delete}, %{state | final: :delete, asked_by: {from, {:delete_complete, ref}}}}
  end

  def handle_info({:durable, {:cordon_request, ref, from}}, state) do
    send(from, {:cordon_in_progress, ref})
    {:stop, :normal, %{state | final: {:status, :cordoned}, asked_by: {from, {:cordon_complete, ref}}}}
  end

  def handle_info({:EXIT, _from, {:group_registry_conflict, key, _meta}}, state),
    do: fatal_exit(state, "#{key}: another process is registered")

  def handle_info(message, state) do
    case Callbacks.optional(state.module, :handle_info, [message, state.user], fn -> :unhandled end) do
      :unhandled -> {:noreply, state}
      result -> settle(result, state)
    end
  end

  # The server is not up yet or is no longer the owner, so it has nothing to store.
  @impl true
  def terminate(_reason, nil), do: :ok
  def terminate({:shutdown, {:durable, {:fatal_exit, _text}}}, _state), do: :ok

  def terminate(reason, state) do
    Callbacks.optional(state.module, :terminate, [reason, state.user], fn -> :ok end)

    result = finish(state.final, reason, state)
    with {:error, failure} <- result, do: Logger.error("#{state.key}: final state not stored: #{inspect(failure)}")
    with {pid, {tag, ref}} <- state.asked_by, do: send(pid, {tag, ref, result})
  end

  defp finish({:status, status}, _reason, state), do: stop(state, status)
  defp finish(:delete, _reason, state), do: delete(state)
  defp finish(nil, :normal, _state), do: :ok
  defp finish(nil, :shutdown, state), do: stop(state, :stopped_graceful)
  defp finish(nil, {:shutdown, _reason}, state), do: stop(state, :stopped_graceful)

  # Writes the metadata only: the changes of a callback that raised are unknown.
  defp finish(nil, reason, state) do
    meta = Meta.crashed(state.stored.meta, reason, now())
    Object.write_meta(state.config.storage_backend, storage_key(state), meta)
  end

  defp stop(state, status) do
    with {:ok, _state} <- write(state, Meta.stopped(state.stored.meta, status, now())), do: :ok
  end

  # A tombstone is written first, so that either the deletion or a concurrent start succeeds.
  defp delete(state) do
    tombstone = %{state.stored | state: %{}, meta: tombstone()}
    backend = state.config.storage_backend

    with {:ok, %{etag: etag}} <- Object.write(backend, storage_key(state), tombstone) do
      case StorageBackend.delete_object(backend, storage_key(state), etag: etag) do
        {:error, gone} when gone in [:not_found, :conflict] -> :ok
        result -> result
      end
    end
  end

  @doc false
  @spec tombstone() :: Meta.t()
  def tombstone, do: %Meta{status: :deleting, node_str: Atom.to_string(node()), last_heartbeat_at: now()}

  defp register(%{config: config, key: key, module: module}, user_meta) do
    Group.register(config.name, key, %GroupMeta{
      key: key,
      module: module,
      storage_key: Config.storage_key(config, key),
      node_ref: config.node_ref,
      start_time: now(),
      user_meta: user_meta,
      supervisor: config.name
    })
    |> case do
      :ok -> :ok
      {:error, {:taken, {pid, _meta}}} -> {:error, {:already_started, pid}}
    end
  end

  defp started(%{config: config, key: key, module: module}, booted, stored) do
    %__MODULE__{
      config: config,
      key: key,
      module: module,
      user: booted.user,
      stored: stored,
      opts: booted.opts,
      user_meta: Keyword.get(booted.opts, :meta)
    }
  end

  # Handles the result of a user's callback: stores first if requested, keeps the state, continues.
  defp settle(result, state) do
    case Callbacks.wish(result) do
      {:go_on, sync?, opts, result, at} ->
        changed = announce(%{state | user: elem(result, at)}, opts)
        auto? = sync? or Keyword.get(state.opts, :auto_sync, false)
        put_elem(result, at, if(auto?, do: sync(changed), else: changed))

      {:stop, _reason, :deleting, result, at} ->
        put_elem(result, at, %{state | user: elem(result, at), final: :delete})

      {:stop, _reason, status, result, at} ->
        put_elem(result, at, %{state | user: elem(result, at), final: {:status, status}})
    end
  end

  defp announce(state, opts) do
    case opts[:meta] do
      meta when is_map(meta) and meta != state.user_meta ->
        :ok = register(state, meta)
        %{state | user_meta: meta}

      _same_or_none ->
        state
    end
  end

  # Stores a state that has changed since it was stored last.
  defp sync(state) do
    dumped = state.module.dump_state(state.user)

    case if(dumped == state.stored.state, do: {:ok, state}, else: write(state, dumped, beat(state.stored.meta))) do
      {:ok, state} ->
        state

      {:error, :conflict} ->
        fatal_exit(state, "#{state.key}: object updated by another owner, no longer run by #{inspect(self())} here")

      {:error, reason} ->
        Logger.error("#{state.key}: not synced: #{inspect(reason)}")
        state
    end
  end

  # One timer for all sync requests that arrive meanwhile.
  defp sync_later(state) do
    if state.sync_timer, do: Process.cancel_timer(state.sync_timer)
    every = Keyword.get(state.opts, :sync_every_ms, @sync_every_ms)
    %{state | sync_timer: every && Process.send_after(self(), {:durable, :sync}, every)}
  end

  defp write(state, meta), do: write(state, state.module.dump_state(state.user), meta)

  defp write(state, dumped, meta) do
    with {:ok, stored} <-
           Object.write(state.config.storage_backend, storage_key(state), %{state.stored | state: dumped, meta: meta}),
         do: {:ok, %{state | stored: stored}}
  end

  defp beat(meta), do: %{meta | last_heartbeat_at: now()}

  defp fatal_exit(state, text) do
    Logger.error("#{inspect(state.module)} #{text}")
    exit({:shutdown, {:durable, {:fatal_exit, text}}})
  end

  defp storage_key(state), do: Config.storage_key(state.config, state.key)
  defp now, do: System.system_time(:millisecond)
  defp tell(starter, result), do: :erlang.send(starter, {starter, result})
end
