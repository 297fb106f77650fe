defmodule HandoffBench.NodeDrain.Server do
  @moduledoc "A durable server with an empty state."

  use DurableServer, vsn: 1

  def init(state), do: {:ok, state, permanent: true}
  def dump_state(_state), do: %{}
  def load_state(_old_vsn, _stored), do: %{}
end
