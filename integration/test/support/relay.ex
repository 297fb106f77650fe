defmodule Relay do
  @moduledoc """
  A process on another node that calls functions there and forwards every message that it gets to the test, as
  `{relay, message}`. It ends with the test.
  """

  @doc """
  Starts a relay on `node`, which first calls `module.function(args...)`. Returns the relay and the result.
  """
  @spec start(node(), {module(), atom(), [term()]}) :: {pid(), term()}
  def start(node, call \\ {:erlang, :self, []}) do
    ref = make_ref()
    relay = Node.spawn(node, __MODULE__, :run, [self(), ref, call])

    receive do
      {^ref, result} -> {relay, result}
    after
      60_000 -> raise "no relay on #{node}"
    end
  end

  @doc "Makes the relay call another function. Returns the result."
  @spec call(pid(), {module(), atom(), [term()]}) :: term()
  def call(relay, call) do
    ref = make_ref()
    send(relay, {__MODULE__, self(), ref, call})

    receive do
      {^ref, result} -> result
    after
      60_000 -> raise "no answer from the relay"
    end
  end

  @doc """
  The result of a call: `{:ok, result}`, or `{:error | :exit | :throw, reason}`. To be called through a relay.
  """
  @spec try({module(), atom(), [term()]}) :: {:ok | :error | :exit | :throw, term()}
  def try({module, function, args}) do
    {:ok, apply(module, function, args)}
  catch
    kind, reason -> {kind, reason}
  end

  @doc false
  @spec run(pid(), reference(), {module(), atom(), [term()]}) :: no_return()
  def run(test, ref, {module, function, args}) do
    Process.monitor(test)
    send(test, {ref, apply(module, function, args)})
    forward(test)
  end

  defp forward(test) do
    receive do
      {__MODULE__, from, ref, {module, function, args}} ->
        send(from, {ref, apply(module, function, args)})
        forward(test)

      {:DOWN, _ref, :process, ^test, _reason} ->
        :ok

      message ->
        send(test, {self(), message})
        forward(test)
    end
  end
end
