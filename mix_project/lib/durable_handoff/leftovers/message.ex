defmodule DurableHandoff.Leftovers.Message do
  @moduledoc false
  # The messages between sources and receivers of leftovers, and the name of a receiver's process.
  #
  # Nodes of another release read these messages: their shapes, and the two names below, are fixed. A receiver
  # answers a call that it does not know with `{:error, :unsupported}` and ignores every other message.

  alias DurableHandoff.Host

  # Not an alias: a reference to that module would be a dependency on it.
  @tag :"Elixir.DurableHandoff.Leftovers"
  @version 1

  @typedoc """
  `line`: the receivers in order; the first one starts the servers. `receivers`: how many nodes start servers of the
  source, of this offer and of the others that it sends now. An earlier release does not send it.
  """
  @type offer :: %{
          version: pos_integer(),
          id: reference(),
          source: node(),
          servers: [{key :: term(), module()}],
          line: [pid(), ...],
          receivers: pos_integer()
        }

  @doc "The name of the receiver of `supervisor`, on every node."
  @spec name(Host.name()) :: atom()
  def name(supervisor), do: :"#{supervisor}_handoff_leftovers"

  @doc "The version of `t:offer/0` that this library sends and takes."
  @spec version() :: pos_integer()
  def version, do: @version

  @doc "The offer that is sent to each receiver of `line`."
  @spec offer(reference(), node(), [{term(), module()}], [pid(), ...], pos_integer()) :: offer()
  def offer(id, source, servers, line, receivers),
    do: %{version: @version, id: id, source: source, servers: servers, line: line, receivers: receivers}

  @doc """
  Sends a request to a receiver, or to the process `name` on a node, and returns at once. Get the answer with
  `:gen_server.receive_response/2`.
  """
  @spec ask(pid() | {atom(), node()}, :ready? | {:accept, offer()}) :: :gen_server.request_id()
  def ask(receiver, :ready?), do: :gen_server.send_request(receiver, :ready?)
  def ask(receiver, {:accept, offer}), do: :gen_server.send_request(receiver, {:take, offer})

  @doc """
  Tells the receiver of this node that the node drains or is cordoned, so that it starts no more servers.
  """
  @spec stand_down(Host.name()) :: :ok
  def stand_down(supervisor), do: supervisor |> name() |> Process.whereis() |> tell(:stand_down)

  @doc "Tells `receiver` that the receiver `pid` starts nothing more."
  @spec stood_down(pid(), pid()) :: :ok
  def stood_down(receiver, pid), do: tell(receiver, {:stood_down, pid})

  @doc "Asks `receiver` to start some servers of an offer that it has accepted."
  @spec forward(pid(), reference(), [term()]) :: :ok
  def forward(receiver, id, keys), do: tell(receiver, {:pass, id, keys})

  @doc "Tells `receiver` that no server of an offer is left for it."
  @spec settled(pid(), reference()) :: :ok
  def settled(receiver, id), do: tell(receiver, {:settled, id})

  @doc "Tells the receivers of connected nodes that this node goes on: it is uncordoned."
  @spec resumed(Host.name()) :: :ok
  def resumed(supervisor), do: Enum.each(Node.list(), &tell({name(supervisor), &1}, {:resumed, node()}))

  @doc "Decodes a message that a receiver got."
  @spec read(term()) ::
          :stand_down
          | {:resumed, node()}
          | {:stood_down, pid()}
          | {:forwarded, term(), [term()]}
          | {:settled, term()}
          | :unknown
  def read({@tag, :stand_down}), do: :stand_down
  def read({@tag, {:stood_down, pid}}) when is_pid(pid), do: {:stood_down, pid}
  def read({@tag, {:pass, id, keys}}) when is_list(keys), do: {:forwarded, id, keys}
  def read({@tag, {:resumed, node}}) when is_atom(node), do: {:resumed, node}
  def read({@tag, {:settled, id}}), do: {:settled, id}
  def read(_other), do: :unknown

  # No receiver runs here.
  defp tell(nil, _message), do: :ok

  # While the connection is full a process of its own waits for it, so such messages may arrive in another order.
  defp tell(receiver, message) do
    message = {@tag, message}

    with :nosuspend <- :erlang.send(receiver, message, [:nosuspend, :noconnect]),
         do: spawn(:erlang, :send, [receiver, message, [:noconnect]])

    :ok
  end
end
