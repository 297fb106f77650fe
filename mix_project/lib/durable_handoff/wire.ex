defmodule DurableHandoff.Wire do
  @moduledoc false
  # The messages between this node and a Rust node. Their meaning and order are documented once, in the Rust
  # crate `handoff_wire`.
  #
  # Guarantees: what `read/1` accepts has the documented shape and is within the documented bounds; a message
  # of another version is distinguished from an invalid one; nothing here raises; the Rust side accepts what
  # the functions below build.
  #
  # Every message is `{:durable_handoff, 1, kind, ...}`. Servers travel as their numbers, keys and states
  # never.

  import Kernel, except: [send: 2]

  alias DurableHandoff.Wire.Reader

  @tag :durable_handoff
  @version 1
  @per_chunk 5_000
  @per_part 100
  @max_events 10_000

  @type id :: Reader.id()
  @type reason :: Reader.reason()
  @type message :: tuple()
  @type received :: Reader.received()

  @doc "The registered name of the process on a BEAM node that Rust nodes and operators send to."
  @spec endpoint_process() :: atom()
  # The name that the protocol has for it; no module of that name exists.
  def endpoint_process, do: :"Elixir.DurableHandoff.Agent"

  @doc """
  Sends a message to a process of another node. Never waits, neither for a connection nor for one that is
  full: a message that cannot go now is not sent.
  """
  @spec send(pid() | {atom(), node()}, term()) :: :ok | :nosuspend | :noconnect
  def send(to, message), do: :erlang.send(to, message, [:nosuspend, :noconnect])

  @doc "The registered name of a Rust node's end."
  @spec node_process() :: atom()
  def node_process, do: @tag

  @doc "The interval at which each side of a drain sends a keepalive."
  @spec keepalive_ms() :: pos_integer()
  def keepalive_ms, do: 500

  @doc "How long a side of a drain waits for any message before it counts the other one as lost."
  @spec silence_ms() :: pos_integer()
  def silence_ms, do: 2_000

  @doc "The version of this library."
  @spec release() :: String.t()
  def release do
    with vsn when is_list(vsn) <- Application.spec(:durable_handoff, :vsn),
         do: List.to_string(vsn),
         else: (_ -> "0.0.0")
  end

  @doc """
  A message from outside.

  `:other` is no message of this protocol; `{:version, got}` one of another version; `:kind` is not for this
  side or unknown here; `{:field, name}` names the wrong field of one that is.
  """
  @spec read(term()) ::
          {:ok, received()} | :other | {:error, {:version, term()} | :kind | {:field, atom()}}
  def read(message) when is_tuple(message) and tuple_size(message) >= 3 and elem(message, 0) == @tag do
    [@tag, version, kind | fields] = Tuple.to_list(message)

    cond do
      version != @version -> {:error, {:version, version}}
      is_atom(kind) -> Reader.read(kind, fields)
      true -> {:error, :kind}
    end
  end

  def read(_message), do: :other

  @spec welcome(pid(), String.t()) :: message()
  def welcome(endpoint, release), do: message(:welcome, [endpoint, %{release: release}])

  @doc "`spec`: `%{supervisor:, storage:, count:, modules:, config:}`."
  @spec drain_open(id(), pid(), map()) :: message()
  def drain_open(id, drainer, spec), do: message(:drain_open, [id, drainer, spec])

  @doc """
  The same for a rebalance. Send it only to Rust nodes that have announced that they know rebalances: others
  would ignore the goal in the configuration and drain.
  """
  @spec rebalance_open(id(), pid(), map()) :: message()
  def rebalance_open(id, drainer, spec), do: message(:rebalance_open, [id, drainer, spec])

  @doc "The next servers from number `first` on, at most 5,000, and the entries after them."
  @spec servers(id(), first :: non_neg_integer(), [{non_neg_integer(), non_neg_integer(), integer()}]) ::
          {message(), next :: non_neg_integer(), [tuple()]}
  def servers(id, first, entries) do
    {chunk, rest} = Enum.split(entries, @per_chunk)

    records = for {module, sticky, priority} <- chunk, into: <<>>, do: <<module::32, sticky::32, priority::signed-32>>

    {message(:servers, [id, first, records]), first + length(chunk), rest}
  end

  @doc "A view in parts of at most 100 nodes; of no nodes, one empty part."
  @spec view(id(), DurableHandoff.Native.view()) :: [message()]
  def view(id, %{now_ms: now_ms, nodes: nodes}) do
    parts = with [] <- Enum.chunk_every(nodes, @per_part), do: [[]]
    count = length(parts)
    for {part, number} <- Enum.with_index(parts, 1), do: message(:view, [id, number, count, now_ms, part])
  end

  @spec drain_start(id(), left_ms :: pos_integer()) :: message()
  def drain_start(id, left_ms), do: message(:drain_start, [id, left_ms])

  @doc "Messages of at most 10,000 events."
  @spec events(id(), [DurableHandoff.Native.event()]) :: [message()]
  def events(id, events), do: for(some <- Enum.chunk_every(events, @max_events), do: message(:events, [id, some]))

  @spec keepalive(id()) :: message()
  def keepalive(id), do: message(:keepalive, [id])

  @spec drain_close(id()) :: message()
  def drain_close(id), do: message(:drain_close, [id])

  @spec refuse(nil | id(), reason()) :: message()
  def refuse(id, reason), do: message(:refuse, [id, reason])

  @doc "`info`: `%{release:, now_ms:, supervisors:, knows:}`."
  @spec description(id(), map()) :: message()
  def description(request, info), do: message(:description, [request, info])

  @spec drain_step(id(), map()) :: message()
  def drain_step(request, progress), do: message(:drain_step, [request, progress])

  @doc "`plan`: `%{total:, moves:, left:, targets:, timeout_ms:, estimate_us:, out_of_reach:}`."
  @spec plan(id(), map()) :: message()
  def plan(request, plan), do: message(:plan, [request, plan])

  @spec drain_done(id(), map()) :: message()
  def drain_done(request, report), do: message(:drain_done, [request, report])

  @doc "`supervisors`: the names of those that are now cordoned, or not any more, as they were asked to be."
  @spec cordon_done(id(), [String.t()]) :: message()
  def cordon_done(request, supervisors), do: message(:cordon_done, [request, %{supervisors: supervisors}])

  @doc "`move`: `%{from:, to:, gap_us:, attempts:}`."
  @spec move_done(id(), map()) :: message()
  def move_done(request, move), do: message(:move_done, [request, move])

  @doc "The refusal of a message of another version. The Rust side takes versions below 2^64."
  @spec refuse_version(term()) :: message()
  def refuse_version(got) when got in 0..0xFFFF_FFFF_FFFF_FFFF,
    do: refuse(nil, {:version, got, @version})

  def refuse_version(_got), do: refuse_version(0)

  defp message(kind, fields), do: List.to_tuple([@tag, @version, kind | fields])
end
