defmodule DurableHandoff.Stopping.Moment do
  @moduledoc false
  # Records whether this VM goes down, and since when. `DurableHandoff.Stopping` finds that out.

  alias DurableHandoff.Clock

  @doc """
  Notes that this VM goes down, for good. The first call of this or `note_request/0` gives the time. Never blocks,
  because the signal server calls it, too.
  """
  @spec note() :: :ok
  def note, do: if(final?(), do: :ok, else: put(noted_us(), true))

  @doc "The same, until `forget/0`: the stop was only requested."
  @spec note_request() :: :ok
  def note_request, do: if(noted_us() == nil, do: put(nil, false), else: :ok)

  @doc "Undoes `note_request/0`."
  @spec forget() :: :ok
  def forget do
    if not final?() and not init_stops?(), do: :persistent_term.erase(__MODULE__)
    :ok
  end

  defp put(noted_us, final?), do: :persistent_term.put(__MODULE__, {noted_us || Clock.now_us(), final?})
  defp final?, do: match?({_noted_us, true}, :persistent_term.get(__MODULE__, nil))

  @doc """
  When it first became known that this VM goes down, in microseconds of the engine's clock; nil if it is not
  known to go down.
  """
  @spec noted_us() :: nil | non_neg_integer()
  def noted_us, do: with({noted_us, _final?} <- :persistent_term.get(__MODULE__, nil), do: noted_us)

  @doc "Whether this VM goes down."
  @spec stopping?() :: boolean()
  def stopping?, do: noted_us() != nil or init_stops?()

  @doc "Whether `:init` is stopping this VM."
  @spec init_stops?() :: boolean()
  def init_stops?, do: match?({:stopping, _progress}, :init.get_status())
end
