defmodule HandoffDemo.Newer do
  @moduledoc """
  A server module that only some releases have. Nodes with it compile it when they boot. Other nodes cannot
  load it, because it is in no file.
  """

  alias HandoffDemo.Server

  @module HandoffDemo.Newer.Server

  @doc "Compiles the module on this node."
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
