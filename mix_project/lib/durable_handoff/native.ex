defmodule DurableHandoff.Native do
  @moduledoc false
  # The engine and the codec: one stub for every function of native/handoff_nif.
  #
  # Times are those of DurableHandoff.Clock; heartbeat stamps are wall-clock milliseconds. Servers are named by
  # their index in the list given to engine_new/4: keys and states stay in Elixir.

  use DurableHandoff.Native.Library, "handoff_nif"

  @on_load :on_load

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
          | {:untouched, blame()}
          | :gone
          | :lost_race
          | :not_stored
          | :stop_failed
          | :not_storable
  @type event ::
          {:finished, id :: non_neg_integer(), attempt :: pos_integer(), outcome(), latency_us :: non_neg_integer()}
          | {:stopped, id :: non_neg_integer()}
          | {:released, id :: non_neg_integer()}
          | {:node_down, String.t()}
          | :cancel

  @doc false
  def on_load do
    with :ok <- accept_code() do
      load_library()
      :ok
    end
  end

  @spec engine_new(config :: map(), servers :: [tuple()], view(), now_us :: integer()) ::
          {:ok, engine()} | {:error, {:invalid, [String.t()]}}
  def engine_new(_config, _servers, _view, _now_us), do: missing()

  @spec engine_poll(engine(), now_us :: integer()) :: {:ok, [action()], :infinity | integer()} | {:error, :busy}
  def engine_poll(_engine, _now_us), do: missing()

  # As engine_poll, on a dirty scheduler: for large drains, whose poll can take longer than a millisecond.
  @spec engine_poll_dirty(engine(), now_us :: integer()) ::
          {:ok, [action()], :infinity | integer()} | {:error, :busy}
  def engine_poll_dirty(_engine, _now_us), do: missing()

  @spec engine_event(engine(), now_us :: integer(), event()) :: :ok | {:error, term()}
  def engine_event(_engine, _now_us, _event), do: missing()

  # Applies an action of another engine. Returns the action to execute here.
  @spec engine_follow(engine(), now_us :: integer(), action()) ::
          {:ok, action()} | {:error, {:unexpected, non_neg_integer()} | :finished | :busy}
  def engine_follow(_engine, _now_us, _action), do: missing()

  # As engine_follow, on a dirty scheduler: for :finish of a large drain, which visits every server that is left.
  @spec engine_follow_dirty(engine(), now_us :: integer(), action()) ::
          {:ok, action()} | {:error, {:unexpected, non_neg_integer()} | :finished | :busy}
  def engine_follow_dirty(_engine, _now_us, _action), do: missing()

  @spec engine_view(engine(), now_us :: integer(), view()) :: :ok | {:error, :busy | {:invalid, [String.t()]}}
  def engine_view(_engine, _now_us, _view), do: missing()

  # The drain ends within `span_us`. An earlier deadline stays.
  @spec engine_end_within(engine(), now_us :: integer(), span_us :: non_neg_integer()) :: :ok | {:error, term()}
  def engine_end_within(_engine, _now_us, _span_us), do: missing()

  # A rebalance starts nothing more; a drain goes on.
  @spec engine_coordinator_lost(engine(), now_us :: integer()) :: :ok | {:error, term()}
  def engine_coordinator_lost(_engine, _now_us), do: missing()

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

  # The words of a progress and of a report that are not reasons, by field.
  @spec words() :: %{idle: [atom()], ended: [atom()], waits_for: [atom()]}
  def words, do: missing()

  # The defaults of a drain's configuration, and the ranges of its numbers.
  @spec config() :: {map(), [{name :: String.t(), low :: non_neg_integer(), high :: pos_integer()}]}
  def config, do: missing()

  # The engine's limiter. A permit is nil when no more may run at a time now. Each permit is returned once.

  @spec limiter_new(:adaptive | :fixed, ceiling :: pos_integer()) :: reference()
  def limiter_new(_mode, _ceiling), do: missing()

  @spec limiter_take(reference(), now_us :: integer()) :: pos_integer() | nil | {:error, :busy}
  def limiter_take(_limiter, _now_us), do: missing()

  @spec limiter_give(
          reference(),
          now_us :: integer(),
          permit :: pos_integer(),
          latency_us :: integer(),
          :served | :overload | :neutral
        ) ::
          :ok | {:error, :busy}
  def limiter_give(_limiter, _now_us, _permit, _latency_us, _verdict), do: missing()

  # JSON. Parts that DurableHandoff.Codec must encode are {value} or {key, :key} between binaries. :too_large
  # and :refused mean that another function or another module must do the work.

  @type encoded :: binary() | [binary() | {term()} | {term(), :key}]

  @spec codec_encode(term()) :: encoded() | :too_large
  def codec_encode(_term), do: missing()

  @spec codec_encode_dirty(term(), expected_bytes :: non_neg_integer()) :: encoded()
  def codec_encode_dirty(_term, _expected_bytes), do: missing()

  @spec codec_decode(binary(), copy :: boolean()) :: term() | :refused
  def codec_decode(_text, _copy), do: missing()

  @spec codec_decode_dirty(binary(), copy :: boolean()) :: term() | :refused
  def codec_decode_dirty(_text, _copy), do: missing()
end
