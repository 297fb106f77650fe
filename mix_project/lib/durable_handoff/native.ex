defmodule DurableHandoff.Native do
  @moduledoc false
  # The Rust engine inside this VM: one stub for every function of native/handoff_nif, nothing else.
  #
  # Guarantees: a library that is missing or does not load never stops an application from booting by itself. Every stub then
  # raises DurableHandoff.NativeError, which names the file, the VM's own reason and the remedy.
  #
  # Times are those of DurableHandoff.Clock; heartbeat stamps are wall-clock milliseconds. Servers are named by
  # their index in the list given to engine_new/4: keys and states stay in Elixir.

  @on_load :load

  @type engine :: reference()
  @type view :: map()
  @type action ::
          {:start, id :: non_neg_integer(), target :: String.t(), attempt :: pos_integer(), timeout_ms :: pos_integer()}
          | {:release, id :: non_neg_integer()}
          | :finish
  @type blame :: :target | :server | :store | :unknown
  @type outcome ::
          {:moved, nil | String.t()}
          | :retry_same
          | :stopping
          | {:displaced, blame()}
          | :untouched
          | :gone
          | :lost_race
  @type event ::
          {:finished, id :: non_neg_integer(), attempt :: pos_integer(), outcome(), latency_us :: non_neg_integer()}
          | {:stopped, id :: non_neg_integer()}
          | {:released, id :: non_neg_integer()}
          | {:node_down, String.t()}
          | :cancel

  @doc false
  def load do
    path = path()
    result = :erlang.load_nif(String.to_charlist(path), 0)
    :persistent_term.put(__MODULE__, {path, result})
    # Anything but :ok would unload this module and turn every clear error into an "undefined function".
    :ok
  end

  @doc "`:ok`, or the exception that says why the engine is not there and what to do."
  @spec check() :: :ok | {:error, Exception.t()}
  def check do
    case :persistent_term.get(__MODULE__, nil) do
      {_path, :ok} -> :ok
      {path, {:error, reason}} -> {:error, DurableHandoff.NativeError.exception(path: path, reason: reason)}
      nil -> {:error, DurableHandoff.NativeError.exception(path: path(), reason: :not_loaded)}
    end
  end

  @spec engine_new(config :: map(), servers :: [tuple()], view(), now_us :: integer()) ::
          {:ok, engine()} | {:error, {:invalid, [String.t()]}}
  def engine_new(_config, _servers, _view, _now_us), do: missing()

  @spec engine_poll(engine(), now_us :: integer()) :: {:ok, [action()], :infinity | integer()} | {:error, :busy}
  def engine_poll(_engine, _now_us), do: missing()

  # The same on a dirty scheduler, for drains so large that a poll can take longer than a millisecond.
  @spec engine_poll_dirty(engine(), now_us :: integer()) ::
          {:ok, [action()], :infinity | integer()} | {:error, :busy}
  def engine_poll_dirty(_engine, _now_us), do: missing()

  @spec engine_event(engine(), now_us :: integer(), event()) :: :ok | {:error, term()}
  def engine_event(_engine, _now_us, _event), do: missing()

  @spec engine_view(engine(), now_us :: integer(), view()) :: :ok | {:error, :busy | {:invalid, [String.t()]}}
  def engine_view(_engine, _now_us, _view), do: missing()

  @spec engine_progress(engine()) :: map() | {:error, :busy}
  def engine_progress(_engine), do: missing()

  @spec engine_report(engine(), now_us :: integer()) :: map() | {:error, :busy}
  def engine_report(_engine, _now_us), do: missing()

  @spec engine_results(engine()) :: binary() | {:error, :busy}
  def engine_results(_engine), do: missing()

  @spec plan(config :: map(), servers :: [tuple()], view()) :: {:ok, map()} | {:error, {:invalid, [String.t()]}}
  def plan(_config, _servers, _view), do: missing()

  @spec eligible(view(), query :: map()) :: [String.t()]
  def eligible(_view, _query), do: missing()

  @spec reasons() :: [{atom(), 1..254}]
  def reasons, do: missing()

  # Raises as `raise` would, and tells compilers and type checkers that this body is replaced at run time.
  defp missing do
    {:error, error} = check()
    :erlang.nif_error(error)
  end

  # The application's own directory in a release and under Mix; without one (a script with -pa), beside the compiled modules.
  defp path do
    priv =
      case {:code.priv_dir(:durable_handoff), :code.which(__MODULE__)} do
        {priv, _beam} when is_list(priv) ->
          List.to_string(priv)

        {_none, beam} when is_list(beam) ->
          beam |> List.to_string() |> Path.dirname() |> Path.join("../priv") |> Path.expand()

        {_none, _unknown} ->
          Path.expand("priv")
      end

    Path.join([priv, "native", "handoff_nif"])
  end
end
