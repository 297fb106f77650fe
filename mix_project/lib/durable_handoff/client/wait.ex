defmodule DurableHandoff.Client.Wait do
  @moduledoc false
  # A caller's side of waiting for an owner: asks `DurableHandoff.Client.Waiting`, and where that process is
  # absent or ends, looks for itself, a little less often each time, until the process is back or the time
  # is up.

  alias DurableHandoff.Client.{Starts, Waiting}
  alias DurableHandoff.Host

  @look_every_ms 20
  @look_at_least_every_ms 250

  # A caller that wants the server started asks, just before its time is up, why it was not.
  @give_up_share 10
  @give_up_at_most_ms 250

  @type t :: %{
          required(:registry) => module(),
          required(:supervisor) => Host.name(),
          required(:key) => term(),
          required(:dead) => [pid()],
          required(:start) => nil | Host.Registry.start(),
          required(:deadline) => integer() | :infinity,
          optional(atom()) => term()
        }

  @doc """
  The owner, once there is one that is none of those known to be gone.

  `:start_failed` comes at once with a reason that is final (`DurableHandoff.Host.Registry.start/4`), else
  when the time is up, with the last reason why the server could not be started yet.
  """
  @spec for_owner(t()) :: {:ok, pid()} | {:error, :no_owner | :host_down | {:overloaded | :start_failed, term()}}
  def for_owner(wait), do: for_owner(wait, 1)

  defp for_owner(wait, round) do
    waiting = Waiting.name(wait.supervisor)
    left_ms = left_ms(wait)

    try do
      GenServer.call(waiting, {:wait, wait.key, wait.dead, wait.start, left_ms}, wait_ms(wait.start, left_ms))
    catch
      :exit, {:timeout, _call} ->
        give_up(wait, waiting)

      :exit, {_absent_or_ended, _call} ->
        look(wait, round)
    end
  end

  defp wait_ms(start, left_ms) when start == nil or left_ms == :infinity, do: left_ms
  defp wait_ms(_start, left_ms), do: left_ms - min(div(left_ms, @give_up_share), @give_up_at_most_ms)

  defp give_up(%{start: nil}, waiting) do
    GenServer.cast(waiting, {:forget, self()})
    {:error, :no_owner}
  end

  defp give_up(wait, waiting) do
    GenServer.call(waiting, {:give_up, wait.key, wait.dead}, left_ms(wait))
  catch
    :exit, _too_busy_or_ended -> give_up(%{wait | start: nil}, waiting)
  end

  defp look(wait, round) do
    case wait.registry.owner(wait.supervisor, wait.key) do
      pid when is_pid(pid) -> if pid in wait.dead, do: pause(wait, round), else: {:ok, pid}
      nil -> start_or_pause(wait, round)
    end
  end

  defp start_or_pause(wait, round) do
    cond do
      wait.registry.up(wait.supervisor) == nil -> {:error, :host_down}
      wait.start == nil or left_ms(wait) == 0 -> pause(wait, round)
      true -> start(wait, round)
    end
  end

  defp start(wait, round) do
    case wait.registry.start(wait.supervisor, wait.key, wait.start, Starts.timeout_ms(left_ms(wait))) do
      {:ok, pid} -> if pid in wait.dead, do: pause(wait, round), else: {:ok, pid}
      {:again, reason} -> wait |> Map.put(:refusal, reason) |> pause(round)
      {:error, reason} -> {:error, {:start_failed, reason}}
    end
  end

  defp pause(wait, round) do
    case left_ms(wait) do
      0 ->
        {:error, with(%{refusal: reason} <- wait, do: {:start_failed, reason}, else: (_none -> :no_owner))}

      left_ms ->
        # Atoms are greater than numbers: :infinity is never the least.
        Process.sleep(Enum.min([left_ms, round * @look_every_ms, @look_at_least_every_ms]))
        for_owner(wait, round + 1)
    end
  end

  @doc "The time that is left until the deadline."
  @spec left_ms(t()) :: timeout()
  def left_ms(%{deadline: :infinity}), do: :infinity
  def left_ms(%{deadline: deadline}), do: max(deadline - System.monotonic_time(:millisecond), 0)
end
