defmodule HandoffDemo.Newer do
  @moduledoc """
  A server module that only some releases have. Nodes that have it compile it when they boot. It is in no
  file, so other nodes cannot load it.
  """

  alias HandoffDemo.Server

  @module HandoffDemo.Newer.Server

  @doc "Makes the module here."
  @spec make() :: :ok
  def make do
    contents =
      quote do
        use DurableServer, vsn: 1

        defdelegate init(state), to: unquote(Server)
        defdelegate dump_state(state), to: unquote(Server)
        defdelegate load_state(old_vsn, stored), to: unquote(Server)
        defdelegate handle_call(message, from, state), to: unquote(Server)
        defdelegate terminate(reason, state), to: unquote(Server)
      end

    {:module, @module, _binary, _result} = Module.create(@module, contents, Macro.Env.location(__ENV__))
    :ok
  end

  @doc "The module of server number `index`, where half of the servers are of the newer kind."
  @spec module(non_neg_integer()) :: module()
  def module(index), do: if(rem(index, 4) < 2, do: Server, else: @module)
end
