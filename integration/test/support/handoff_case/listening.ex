defmodule HandoffCase.Listening do
  @moduledoc "What nodes log, and which events they send: both go to the test as messages."

  import ExUnit.Assertions

  @doc """
  Sends the log lines of `node` to the test as `{:log, node, level, event, metadata}` and does not print them:
  the lines of this library about the test's supervisor or the whole VM, with their event and metadata
  (`DurableHandoff.Log`), and those of DurableServer, as event `:host`. OTP's crash reports are of event `:crash_report`;
  Elixir drops them unless `handle_sasl_reports` is set.
  """
  @spec listen_to_log(map(), node()) :: :ok
  def listen_to_log(context, node) do
    for id <- Cluster.call(node, :logger, :get_handler_ids, []),
        do: :ok = Cluster.call(node, :logger, :set_handler_config, [id, :level, :none])

    config = %{config: %{test: self(), sup: context.sup}}
    :ok = Cluster.call(node, :logger, :add_handler, [:test, __MODULE__.LogForwarder, config])
    :ok = Cluster.call(node, :logger, :set_primary_config, [:level, :info])
    ExUnit.Callbacks.on_exit(fn -> quiet(node) end)
  end

  @doc "Waits for the line of `event` on `node`, after `listen_to_log/2`, whose metadata has `fields`: its level and metadata."
  @spec await_log(node(), atom(), map()) :: {Logger.level(), map()}
  def await_log(node, event, fields \\ %{}) do
    assert_receive {:log, ^node, level, ^event, metadata}, 60_000
    if Map.take(metadata, Map.keys(fields)) == fields, do: {level, metadata}, else: await_log(node, event, fields)
  end

  @doc """
  Sends every telemetry event of the library on `node` to the test as `{:event, name, measurements,
  metadata}`. If the node has no `:telemetry`, defines one that does only this; it stays on the node.
  """
  @spec listen_to_telemetry(node()) :: :ok
  def listen_to_telemetry(node) do
    events =
      for event <- [
            [:shutdown, :start],
            [:shutdown, :stop],
            [:drain, :start],
            [:drain, :stop],
            [:move, :stop],
            [:mark],
            [:attempt, :stop],
            [:attempt, :exception],
            [:leftovers, :offer],
            [:leftovers, :stop],
            [:fallback]
          ],
          do: [:durable_handoff | event]

    loaded? = Cluster.call(node, Code, :ensure_loaded?, [:telemetry])

    if loaded? and Cluster.call(node, :erlang, :function_exported, [:telemetry, :attach_many, 4]) do
      :ok = Cluster.call(node, :telemetry, :attach_many, [make_ref(), events, &__MODULE__.forward_event/4, self()])
    else
      {:module, :telemetry, binary, _term} = Module.create(:telemetry, forwarding(self()), Macro.Env.location(__ENV__))
      :code.purge(:telemetry)
      :code.delete(:telemetry)
      # The module of an earlier test, which had other listeners.
      Cluster.call(node, :code, :purge, [:telemetry])
      {:module, :telemetry} = Cluster.call(node, :code, :load_binary, [:telemetry, ~c"made by a test", binary])
      :ok
    end
  end

  @doc false
  def forward_event(event, measurements, metadata, test), do: send(test, {:event, event, measurements, metadata})

  defp forwarding(test) do
    test = :erlang.term_to_binary(test)

    quote do
      def execute(event, measurements, metadata),
        do: send(:erlang.binary_to_term(unquote(test)), {:event, event, measurements, metadata})
    end
  end

  # The node may be gone by then.
  defp quiet(node) do
    :erpc.call(node, :logger, :remove_handler, [:test])
    :erpc.call(node, :logger, :set_primary_config, [:level, :error])
  catch
    :error, {:erpc, _reason} -> :ok
  end
end

defmodule HandoffCase.Listening.LogForwarder do
  @moduledoc "A logger handler that sends the lines of this library and of DurableServer to a test."

  @doc "The callback of `:logger` for one log event."
  @spec log(:logger.log_event(), :logger.handler_config()) :: term()
  def log(%{level: level, meta: %{durable_handoff: event} = metadata}, %{config: %{test: test, sup: sup}}) do
    if Map.get(metadata, :supervisor, sup) == sup, do: send(test, {:log, node(), level, event, metadata})
  end

  def log(%{level: level, msg: {:report, %{label: {:proc_lib, :crash}}}, meta: metadata}, %{config: %{test: test}}),
    do: send(test, {:log, node(), level, :crash_report, metadata})

  def log(%{level: level, meta: %{mfa: {module, _function, _arity}} = metadata}, %{config: %{test: test}}) do
    if module in DurableHandoff.Host.modules(), do: send(test, {:log, node(), level, :host, metadata})
  end

  def log(_other, _config), do: :ok
end
