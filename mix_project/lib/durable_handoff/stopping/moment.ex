defmodule DurableHandoff.Stopping.Moment do
  @moduledoc false
  # Records whether this VM goes down, and since when. `DurableHandoff.Stopping` finds that out.

  alias DurableHandoff.Clock

  @doc """
  Notes that this VM goes down. Only the first call counts. Never blocks, because the signal server calls it,
  too.
  """
  @spec note() :: :ok
  def note, do: if(noted_us() == nil, do: :persistent_term.put(__MODULE__, Clock.now_us()), else: :ok)

  @doc """
  When it first became known that this VM goes down, in microseconds of the engine's clock; nil if it is not
  known to go down.
  """
  @spec noted_us() :: nil | non_neg_integer()
  def noted_us, do: :persistent_term.get(__MODULE__, nil)

  @doc "Whether this VM goes down."
  @spec stopping?() :: boolean()
  def stopping?, do: noted_us() != nil or init_stops?()

  @doc "Whether `:init` is stopping this VM."
  @spec init_stops?() :: boolean()
  def init_stops?, do: match?({:stopping, _progress}, :init.get_status())
end
