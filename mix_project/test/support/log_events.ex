defmodule DurableHandoff.LogEvents do
  @moduledoc "The log lines of the library by their metadata (`DurableHandoff.Log`), for tests."

  @doc """
  Runs `fun`. Returns its result and the lines logged meanwhile as `{level, event, metadata}`: those for which
  `wanted?` is true, by default those of the calling process.
  """
  @spec collect((() -> result), (map() -> boolean())) :: {result, [{:logger.level(), atom(), map()}]}
        when result: term()
  def collect(fun, wanted? \\ by(self())) do
    id = :"log_events_#{System.unique_integer([:positive])}"
    ref = make_ref()
    :ok = :logger.add_handler(id, __MODULE__, %{config: %{to: self(), ref: ref, wanted?: wanted?}})

    try do
      {fun.(), received(ref)}
    after
      :logger.remove_handler(id)
    end
  end

  @doc false
  def log(%{level: level, meta: %{durable_handoff: event} = metadata}, %{config: config}) do
    if config.wanted?.(metadata), do: send(config.to, {config.ref, {level, event, metadata}})
  end

  def log(_other, _config), do: :ok

  defp by(pid), do: &(&1.pid == pid)

  # The handler runs in the process that logs, before that process continues.
  defp received(ref) do
    receive do
      {^ref, line} -> [line | received(ref)]
    after
      0 -> []
    end
  end
end
