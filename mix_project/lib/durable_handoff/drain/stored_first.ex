defmodule DurableHandoff.Drain.StoredFirst do
  @moduledoc false
  # Decides whether a running server may be stopped without losing state.
  #
  # DurableServer stops a server even if its final write fails. So a `DurableHandoff.Drain.Attempt` has it
  # store its state just before, while it still runs. If the store fails between the two, only changes after
  # that moment are lost.
  #
  # | its sync | the store takes a write now | meaning |
  # |---|---|---|
  # | stored | | may be stopped |
  # | unchanged | not asked | may be stopped |
  # | unchanged, after an incident of the store, or failed syncs cannot be seen | yes | may be stopped |
  # | the same | no | `{:untouched, :store}` |
  # | failed | no | `{:untouched, :store}` |
  # | failed, and again | yes | `:not_storable`: its own state is what cannot be stored |
  # | the server ended with an exception | | `:not_storable` |
  # | the server ended in another way | | the attempt finds out why |
  # | no answer in time, or too little time is left for a move | | `{:untouched, :server}` |
  #
  # `DurableHandoff.Host.Sync.store_takes_writes?/2` asks the store for a write. Everything together takes no
  # longer than the time of the attempt.

  alias DurableHandoff.{Clock, Deadline, Host, Native}
  alias DurableHandoff.Host.Sync

  @typedoc "`watch`: the table of failed syncs. `trust?`: the store has not failed since its last successful write."
  @type how :: %{watch: Sync.watch(), trust?: boolean()}
  @type why :: {:sync_failed, String.t()} | {:sync_ended, term()} | :store_takes_no_writes | :busy

  # A working store answers within this time.
  @probe_ms 2_000

  @doc "`until_us`: when the attempt ends. The time left after the sync is for the move."
  @spec check(Host.name(), Host.server(), how(), until_us :: integer()) :: :ok | {Native.outcome(), why()}
  def check(supervisor, server, %{watch: watch, trust?: trust?}, until_us) do
    writes? = fn -> Sync.store_takes_writes?(supervisor, min(@probe_ms, left_ms(until_us))) end

    case Sync.run(server.pid, watch, left_ms(until_us)) do
      :stored ->
        :ok

      :unchanged ->
        if (trust? and not Sync.blind?(watch)) or writes?.(),
          do: :ok,
          else: {{:untouched, :store}, :store_takes_no_writes}

      {:failed, cause} ->
        if writes?.(), do: again(server, watch, until_us), else: {{:untouched, :store}, {:sync_failed, cause}}

      other ->
        other(other)
    end
  end

  defp left_ms(until_us), do: max(Deadline.until_ms(until_us, Clock.now_us()), 1)

  defp again(server, watch, until_us) do
    case Sync.run_alone(server.pid, watch, left_ms(until_us)) do
      result when result in [:stored, :unchanged] -> :ok
      {:failed, cause} -> {:not_storable, {:sync_failed, cause}}
      other -> other(other)
    end
  end

  defp other(:timeout), do: {{:untouched, :server}, :busy}

  defp other({:ended, {%{__exception__: true}, stacktrace} = reason}) when is_list(stacktrace),
    do: {:not_storable, {:sync_ended, reason}}

  # A conflict, or the server was already stopping: the attempt reads the store to find out.
  defp other({:ended, _reason}), do: :ok
end
