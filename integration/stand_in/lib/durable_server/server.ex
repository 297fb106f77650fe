defmodule DurableServer.Server do
  @moduledoc """
  The process of one durable server.

  It answers its starter only when it is fully up: claimed, loaded, initialised, stored and registered. Its last act is one
  conditional write of its state, after the user's `terminate/2`. A conflict in any write means that somebody else
  owns the key now; the server then stops and writes nothing more.
  """

  use GenServer

  require Logger

  alias DurableServer.{Boot, Callbacks, Capacity, Config, Meta, Object}

  @sync_every_ms 5_000

  @type result :: {:ok, {pid(), map() | nil}} | :ignore | {:error, term()}

  defstruct [:config, :key, :module, :user, :stored, :opts, :user_meta, :sync_timer, ends: :by_reason, lost?: false]

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

  # Runs while the dynamic supervisor waits, so starts are admitted one at a time; storage is left to `handle_continue`.
  @impl true
  def init({%{config: config} = request, starter}) do
    Process.flag(:trap_exit, true)

    with :ok <- if(Config.draining?(config), do: {:error, :shutting_down}, else: :ok),
         :ok <- Capacity.check(config, request.module),
         {:ok, _owner} <- Registry.register(config.server_registry, request.key, request.module) do
      {:ok, nil, {:continue, {__MODULE__, request, starter}}}
    else
      refusal ->
        tell(starter, refusal)
        :ignore
    end
  end

  @impl true
  def handle_continue({__MODULE__, request, starter}, nil) do
    case Boot.run(request) do
      {:ok, booted} ->
        state = register(request, booted)
        tell(starter, {:ok, {self(), state.user_meta}})
        {:noreply, state}

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

  def handle_call({:durable, {:stop_with_status, status, reason}}, from, state) do
    GenServer.reply(from, :ok)
    {:stop, reason, %{state | ends: {:status, status}}}
  end

  def handle_call({:durable, {:stop_for_rehome, node_str, ttl_ms, reason}}, from, state) do
    GenServer.reply(from, :ok)
    {:stop, reason, %{state | ends: {:reserved, node_str, ttl_ms}}}
  end

  def handle_call(message, from, state), do: settle(state.module.handle_call(message, from, state.user), state)

  @impl true
  def handle_cast(message, state), do: settle(state.module.handle_cast(message, state.user), state)

  @impl true
  def handle_info({:durable, {:sync_and_stop, _reason}}, state),
    do: {:stop, :normal, %{state | ends: {:status, :stopped_graceful}}}

  def handle_info({:durable, :sync}, state) do
    case store(%{state | sync_timer: nil}) do
      {:ok, state} ->
        {:noreply, state}

      {:error, :conflict} ->
        {:stop, fatal(:conflict), %{state | lost?: true}}

      # Best effort: the next change, or the stop, tries again.
      {:error, reason} ->
        Logger.warning("#{state.key}: not synced: #{inspect(reason)}")
        {:noreply, %{state | sync_timer: nil}}
    end
  end

  def handle_info({:EXIT, _from, {:shutdown, {:group_conflict, _key, _winner} = conflict}}, state),
    do: {:stop, fatal(conflict), %{state | lost?: true}}

  def handle_info(message, state) do
    case Callbacks.optional(state.module, :handle_info, [message, state.user], fn -> :unhandled end) do
      :unhandled -> {:noreply, state}
      result -> settle(result, state)
    end
  end

  @impl true
  def terminate(_reason, nil), do: :ok

  def terminate(reason, state) do
    terminate_user(reason, state)

    with false <- state.lost?,
         {:error, failure} <- store(%{state | stored: %{state.stored | meta: final_meta(reason, state)}}) do
      Logger.error("#{state.key}: final state not stored: #{inspect(failure)}")
    end
  end

  defp terminate_user(reason, state) do
    Callbacks.optional(state.module, :terminate, [reason, state.user], fn -> :ok end)
  catch
    kind, error -> Logger.error("#{state.key}: terminate failed: " <> Exception.format(kind, error, __STACKTRACE__))
  end

  defp final_meta(reason, %{stored: %{meta: meta}} = state) do
    now = System.system_time(:millisecond)

    case state.ends do
      {:reserved, node_str, ttl_ms} ->
        meta |> Meta.stopped(:stopped_graceful, now) |> Meta.reserve(node_str, ttl_ms, now)

      {:status, status} ->
        Meta.stopped(meta, status, now)

      :by_reason ->
        if graceful?(reason), do: Meta.stopped(meta, :stopped_graceful, now), else: Meta.crashed(meta, reason, now)
    end
  end

  defp graceful?(reason), do: reason in [:normal, :shutdown] or match?({:shutdown, _}, reason)

  defp register(%{config: config, key: key, module: module}, booted) do
    user_meta = Keyword.get(booted.opts, :meta)

    :ok =
      Group.register(config.name, key, %{
        key: key,
        module: module,
        storage_key: Config.storage_key(config, key),
        node_ref: config.node_ref,
        start_time: System.system_time(:millisecond),
        user_meta: user_meta,
        supervisor: config.name
      })

    %__MODULE__{
      config: config,
      key: key,
      module: module,
      user: booted.user,
      stored: booted.stored,
      opts: booted.opts,
      user_meta: user_meta
    }
  end

  # What a user's callback returned: store first where it asks for that, remember the state, go on.
  defp settle(result, state) do
    {sync?, result} = Callbacks.split_sync(result)
    {user, at} = Callbacks.state(result)
    changed = %{state | user: user}

    if sync? do
      case store(changed) do
        {:ok, stored} -> put_elem(result, at, stored)
        {:error, reason} -> {:stop, fatal(reason), %{changed | lost?: reason == :conflict}}
      end
    else
      put_elem(result, at, if(user === state.user, do: changed, else: sync_later(changed)))
    end
  end

  defp sync_later(%{sync_timer: nil} = state) do
    if Keyword.get(state.opts, :auto_sync, true) do
      every = Keyword.get(state.opts, :sync_every_ms, @sync_every_ms)
      %{state | sync_timer: Process.send_after(self(), {:durable, :sync}, every)}
    else
      state
    end
  end

  defp sync_later(state), do: state

  defp store(state) do
    storage_key = Config.storage_key(state.config, state.key)

    with {:ok, stored} <-
           Object.write(state.config.storage_backend, storage_key, %{
             state.stored
             | state: state.module.dump_state(state.user)
           }),
         do: {:ok, %{state | stored: stored}}
  end

  defp fatal(reason), do: {:shutdown, {:durable, {:fatal_exit, reason}}}

  defp tell(starter, result), do: :erlang.send(starter, {starter, result})
end
