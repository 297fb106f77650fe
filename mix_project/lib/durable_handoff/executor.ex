defmodule DurableHandoff.Executor do
  @moduledoc """
  Who decides in a drain: which server goes where, when, and what to do after a failure.

  Guarantee: whichever executor runs, it gets the same configuration, servers, view and events and answers with the same actions;
  a drain does not depend on which one it is.

    * `:embedded`: the Rust engine inside this VM. Always there.
    * `{:node, name}`: a Rust node that coordinates all draining nodes. A Rust node is used once it has announced itself to this
      node. None can have done so in this version, which has no Rust node: the drain says so in one warning and runs embedded.
    * `:auto`: a Rust node when one has announced itself, else embedded. In this version: embedded.
  """

  require Logger

  alias DurableHandoff.{Native, Telemetry}

  @type engine :: term()

  @callback start(config :: map(), servers :: [tuple()], Native.view(), now_us :: integer()) ::
              {:ok, engine()} | {:error, term()}
  @callback poll(engine(), now_us :: integer()) :: {:ok, [Native.action()], :infinity | integer()} | {:error, term()}
  @callback event(engine(), now_us :: integer(), Native.event()) :: :ok | {:error, term()}
  @callback view(engine(), now_us :: integer(), Native.view()) :: :ok | {:error, term()}
  @callback progress(engine()) :: map()
  @callback report(engine(), now_us :: integer()) :: map()

  @doc "Who runs a drain of `supervisor` with the option `executor`: its name for the report, and its module."
  @spec choose(:auto | :embedded | {:node, node()}, atom()) :: {:embedded, module()}
  def choose({:node, name}, supervisor) do
    Logger.warning(
      "[durable_handoff] #{inspect(supervisor)}: no Rust node #{inspect(name)} has announced itself; " <>
        "the engine in this VM runs the drain"
    )

    Telemetry.fallback(supervisor, {:no_executor, name})
    {:embedded, __MODULE__.Embedded}
  end

  def choose(_auto_or_embedded, _supervisor), do: {:embedded, __MODULE__.Embedded}
end
