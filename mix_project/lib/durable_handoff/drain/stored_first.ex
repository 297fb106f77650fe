defmodule DurableHandoff.Drain.StoredFirst do
  @moduledoc """
  Whether a server that runs here may be stopped now, as far as its state is concerned.

  The host stops a server whatever becomes of its final write. So a `DurableHandoff.Drain.Attempt` has it store its
  state just before, while it still runs. If the store fails between the two, only changes after that moment
  are lost.

  | its sync | the store takes a write now | meaning |
  |---|---|---|
  | stored | | may be stopped |
  | unchanged | not asked | may be stopped |
  | unchanged, after an incident of the store, or failed syncs cannot be seen | yes | may be stopped |
  | the same | no | `{:untouched, :store}` |
  | failed | no | `{:untouched, :store}` |
  | failed, and again | yes | `:not_storable`: its own state is what cannot be stored |
  | it ended by an exception | | `:not_storable` |
  | it ended in another way | | the attempt finds out why |
  | no answer in time | | `{:untouched, :server}` |

  The write that is asked for is this node's heartbeat (`DurableHandoff.Host.Sync.store_takes_writes?/2`).
  """

  alias DurableHandoff.{Host, Native}
  alias DurableHandoff.Host.Sync

  @typedoc "`watch`: where failed syncs are seen; `trust?`: no incident of the store since it was last seen to take a write."
  @type how :: %{watch: Sync.watch(), trust?: boolean()}
  @type why :: {:sync_failed, String.t()} | {:sync_ended, term()} | :store_takes_no_writes | :busy

  # A working store answers within this time.
  @probe_ms 2_000

  @spec check(Host.name(), Host.server(), how(), timeout_ms :: pos_integer()) :: :ok | {Native.outcome(), why()}
  def check(supervisor, server, %{watch: watch, trust?: trust?}, timeout_ms) do
    writes? = fn -> Sync.store_takes_writes?(supervisor, min(@probe_ms, timeout_ms)) end

    case Sync.run(server.pid, watch, timeout_ms) do
      :stored ->
        :ok

      :unchanged ->
        if (trust? and not Sync.blind?(watch)) or writes?.(),
          do: :ok,
          else: {{:untouched, :store}, :store_takes_no_writes}

      {:failed, cause} ->
        if writes?.(), do: again(server, watch, timeout_ms), else: {{:untouched, :store}, {:sync_failed, cause}}

      other ->
        other(other)
    end
  end

  defp again(server, watch, timeout_ms) do
    case Sync.run(server.pid, watch, timeout_ms) do
      result when result in [:stored, :unchanged] -> :ok
      {:failed, cause} -> {:not_storable, {:sync_failed, cause}}
      other -> other(other)
    end
  end

  defp other(:timeout), do: {{:untouched, :server}, :busy}

  defp other({:ended, {%{__exception__: true}, stacktrace} = reason}) when is_list(stacktrace),
    do: {:not_storable, {:sync_ended, reason}}

  # A conflict, or it was stopping already: the attempt reads the store to find out.
  defp other({:ended, _reason}), do: :ok
end
