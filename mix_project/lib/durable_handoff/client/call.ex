defmodule DurableHandoff.Client.Call do
  @moduledoc false
  # One call, cast or await, in the process of its caller: finds the owner, sends, waits for a new owner,
  # sends again.
  #
  # It waits in a call to `DurableHandoff.Client.Server`. If that process is absent or ends, it polls the
  # registry at growing intervals until the process is back or the time is up.

  import DurableHandoff.Schema, only: [server_key!: 2, supervisor_name!: 2]

  alias DurableHandoff.{Clock, Host, Telemetry}
  alias DurableHandoff.Client.{Options, Request, Server, StartQueue}

  # How many dead processes, which a lagging registry may still return, are remembered. One that is forgotten
  # costs one useless message. More than a few in one call mean that the server ends as soon as it starts.
  @remembered 8

  # A server that ends as soon as it is started is started again after a pause, which doubles each time. It begins with
  # the second process of a call that ended, so a server that has moved once is asked again at once.
  @first_pause_ms 20
  @longest_pause_ms 1_000

  @poll_every_ms 20
  @poll_at_least_every_ms 250

  @longest_question_ms 1_000

  # A caller that wants the server started asks for the reason of a failed start just before its time is up.
  @last_question_share 10
  @last_question_at_most_ms 250

  @enforce_keys [:registry, :supervisor, :key, :operation, :retry, :start, :began_us, :deadline_us]
  defstruct @enforce_keys ++ [dead: [], unanswered: 0, waited_us: nil, refusal: nil]

  @typedoc """
  `dead`: processes this caller knows to be gone; `unanswered`: requests sent so far without a reply;
  `waited_us`: time without a known owner, nil when the first lookup found one; `refusal`: why the server
  could not be started yet.
  """
  @type t :: %__MODULE__{
          registry: module(),
          supervisor: Host.name(),
          key: term(),
          operation: Options.operation(),
          retry: :unhandled | :never | :always,
          start: nil | Host.Registry.start(),
          began_us: Clock.instant(),
          deadline_us: Clock.instant() | :infinity,
          dead: [pid()],
          unanswered: non_neg_integer(),
          waited_us: nil | non_neg_integer(),
          refusal: nil | {:start_failed, term()}
        }

  @doc "A call that begins now. Raises `ArgumentError` when an argument is wrong."
  @spec new(module(), Host.name(), term(), Options.operation(), keyword()) :: t()
  def new(registry, supervisor, key, operation, given) do
    supervisor_name!(supervisor, "DurableHandoff.#{operation}: the first argument")
    server_key!(key, "DurableHandoff.#{operation}: the second argument")
    options = Options.read!(given, operation)
    began_us = Clock.now_us()

    %__MODULE__{
      registry: registry,
      supervisor: supervisor,
      key: key,
      operation: operation,
      retry: options.retry,
      start: options.start,
      began_us: began_us,
      deadline_us: if(options.timeout == :infinity, do: :infinity, else: began_us + options.timeout * 1_000)
    }
  end

  @doc """
  Calls `send` with an owner and the milliseconds left, until one of its results ends the call or the time is
  up.
  """
  @spec run(t(), (pid(), timeout() -> Request.outcome())) :: {:ok, term()} | {:error, reason :: term()}
  def run(call, send) do
    case call.registry.owner(call.supervisor, call.key) do
      nil -> wait(call, send)
      pid -> attempt(call, pid, send)
    end
  end

  defp attempt(call, pid, send) do
    case send.(pid, Clock.until_ms(call.deadline_us)) do
      {:ok, reply} -> finish(call, {:ok, reply})
      # Nothing was sent, so the next send is the first one, whatever `retry` is.
      :unreachable -> wait(call, send)
      {:failed, reason} -> finish(unanswered(call), {:error, reason})
      outcome -> call |> unanswered() |> again(pid, outcome, send)
    end
  end

  defp unanswered(call), do: %{call | unanswered: call.unanswered + 1}

  defp again(call, pid, {kind, reason}, send) do
    if again?(call.retry, kind),
      do: call |> remember(kind, pid) |> wait(send),
      else: finish(call, {:error, reason})
  end

  defp again?(:always, _kind), do: true
  defp again?(:unhandled, kind), do: kind == :unhandled
  defp again?(:never, _kind), do: false

  # A process behind a lost connection may still run and own the server.
  defp remember(call, :lost, _pid), do: call
  defp remember(call, _ended, pid), do: %{call | dead: [pid | Enum.take(call.dead, @remembered - 1)]}

  defp finish(%{waited_us: nil}, result), do: result

  defp finish(call, result) do
    Telemetry.waited(call, Clock.now_us() - call.began_us, result)
    result
  end

  # Waiting for an owner that is not one of `dead`

  defp wait(call, send) do
    from_us = Clock.now_us()
    result = with :ok <- pause_before_start(call), do: await_owner(call, 1)
    call = %{call | waited_us: (call.waited_us || 0) + Clock.now_us() - from_us}

    case result do
      {:ok, pid} -> if dead?(call, pid), do: call |> remember(:ended, pid) |> wait(send), else: attempt(call, pid, send)
      {:error, reason} -> finish(call, {:error, reason})
    end
  end

  defp pause_before_start(%{start: start, dead: [_moved, _second | more]} = call) when start != nil do
    pause_ms = min(@first_pause_ms * 2 ** length(more), @longest_pause_ms)

    # After a pause until the deadline no caller would wait for the server that is started. In Erlang's term order
    # :infinity is greater than every number.
    if pause_ms < Clock.until_ms(call.deadline_us),
      do: Process.sleep(pause_ms),
      else: {:error, call.refusal || :no_owner}
  end

  defp pause_before_start(_call), do: :ok

  # A hint, and a registry that lags, can name a process that has ended. A request to it that may be sent again finds
  # that out at no further cost. The others ask first.
  defp dead?(%{operation: :call, retry: retry}, _pid) when retry != :never, do: false

  defp dead?(call, pid),
    do: Host.alive?(pid, min(Clock.until_ms(call.deadline_us), @longest_question_ms)) == false

  # `:start_failed` comes at once with a final reason (`DurableHandoff.Host.Registry.start/4`). Otherwise it
  # comes when the time is up, with the last reason why the server could not be started.
  defp await_owner(call, round) do
    server = Server.name(call.supervisor)
    left_ms = Clock.until_ms(call.deadline_us)

    try do
      GenServer.call(server, {:wait, call.key, call.dead, call.start, left_ms}, wait_ms(call.start, left_ms))
    catch
      :exit, {:timeout, _call} -> give_up(call, server)
      :exit, {_absent_or_ended, _call} -> poll(call, round)
    end
  end

  defp wait_ms(start, left_ms) when start == nil or left_ms == :infinity, do: left_ms
  defp wait_ms(_start, left_ms), do: left_ms - min(div(left_ms, @last_question_share), @last_question_at_most_ms)

  defp give_up(%{start: nil}, server) do
    GenServer.cast(server, {:forget, self()})
    {:error, :no_owner}
  end

  defp give_up(call, server) do
    GenServer.call(server, {:give_up, call.key, call.dead}, Clock.until_ms(call.deadline_us))
  catch
    :exit, _too_busy_or_ended -> give_up(%{call | start: nil}, server)
  end

  defp poll(call, round) do
    case call.registry.owner(call.supervisor, call.key) do
      nil -> start_or_pause(call, round)
      pid -> if pid in call.dead, do: pause(call, round), else: {:ok, pid}
    end
  end

  defp start_or_pause(call, round) do
    cond do
      call.registry.up(call.supervisor) == nil -> {:error, :supervisor_not_running}
      call.start == nil or Clock.until_ms(call.deadline_us) == 0 -> pause(call, round)
      true -> start(call, round)
    end
  end

  defp start(call, round) do
    timeout_ms = StartQueue.timeout_ms(Clock.until_ms(call.deadline_us))

    case call.registry.start(call.supervisor, call.key, call.start, timeout_ms) do
      {:ok, pid} -> if pid in call.dead, do: pause(call, round), else: {:ok, pid}
      {:again, reason} -> pause(%{call | refusal: {:start_failed, reason}}, round)
      {:error, reason} -> {:error, {:start_failed, reason}}
    end
  end

  defp pause(call, round) do
    case Clock.until_ms(call.deadline_us) do
      0 ->
        {:error, call.refusal || :no_owner}

      left_ms ->
        # In Erlang's term order atoms are greater than numbers, so :infinity is never the minimum.
        Process.sleep(Enum.min([left_ms, round * @poll_every_ms, @poll_at_least_every_ms]))
        await_owner(call, round + 1)
    end
  end
end
