defmodule DurableHandoff.Stopping.Moment do
  @moduledoc false
  # Whether this VM goes down, and since when. `DurableHandoff.Stopping` finds that out.

  alias DurableHandoff.Clock

  @doc "Notes that this VM goes down. The first moment counts. Never waits: it is called in the process of the signal server, too."
  @spec note() :: :ok
  def note, do: if(noted_us() == nil, do: :persistent_term.put(__MODULE__, Clock.now_us()), else: :ok)

  @doc "When it was first known that this VM goes down, in microseconds of the engine's clock. nil: it does not, for all that is known."
  @spec noted_us() :: nil | non_neg_integer()
  def noted_us, do: :persistent_term.get(__MODULE__, nil)

  @doc "Whether this VM goes down."
  @spec stopping?() :: boolean()
  def stopping?, do: noted_us() != nil or init_stops?()

  @doc "Whether `:init` stops this VM."
  @spec init_stops?() :: boolean()
  def init_stops?, do: match?({:stopping, _progress}, :init.get_status())
end
