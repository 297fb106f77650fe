defmodule DurableHandoff.Wire do
  @moduledoc """
  The messages between this node and a Rust node. Their meaning and order are documented once, in the Rust crate `handoff_wire`.

  Guarantees: what `read/1` accepts has the documented shape and is within the documented bounds; a message of another version is told from
  one that is wrong; nothing here raises, whatever it is given. What the functions below build, the Rust side accepts.

  Every message is `{:durable_handoff, 1, kind, ...}`. Servers travel as their numbers, keys and states never.
  """

  alias DurableHandoff.Wire.Reader

  @tag :durable_handoff
  @version 1
  @per_chunk 5_000
  @per_part 100
  @max_events 10_000

  @type id :: non_neg_integer()
  @type message :: tuple()
  @type received ::
          {:announce, pid(), %{release: String.t(), accepting: boolean()}}
          | {:opened | :started, id()}
          | {:orders, id(), [DurableHandoff.Native.action()]}
          | {:progress, id()}
          | {:report, id(), map()}
          | {:refuse, nil | id(), reason()}
          | {:describe, id(), pid()}
          | {:drain_request, id(), pid(),
             %{supervisor: String.t(), timeout_ms: nil | non_neg_integer(), dry_run: boolean()}}
  @type reason ::
          :unknown_drain
          | :duplicate
          | :silent
          | :stopping
          | :failed
          | {:version, got :: non_neg_integer(), takes :: non_neg_integer()}
          | {:invalid, [String.t()]}
          | {:full, String.t(), non_neg_integer()}
          | {:out_of_order, String.t()}

  @doc "The registered name of a Rust node's end."
  @spec node_process() :: atom()
  def node_process, do: @tag

  @doc "How often each side of a drain says that it is there, and for how long the other may be silent."
  @spec keepalive_ms() :: pos_integer()
  def keepalive_ms, do: 500

  @spec silence_ms() :: pos_integer()
  def silence_ms, do: 2_000

  @doc """
  A message from outside.

  `:other` is no message of this protocol; `{:version, got}` one of another version; `:kind` is not for this side or unknown here;
  `{:field, name}` says what is wrong with one that is.
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
  def welcome(agent, release), do: message(:welcome, [agent, %{release: release}])

  @doc "`spec`: `%{supervisor:, storage:, count:, modules:, config:}`."
  @spec drain_open(id(), pid(), map()) :: message()
  def drain_open(id, drainer, spec), do: message(:drain_open, [id, drainer, spec])

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

  @doc "`info`: `%{release:, now_ms:, supervisors:}`."
  @spec description(id(), map()) :: message()
  def description(request, info), do: message(:description, [request, info])

  @spec drain_step(id(), map()) :: message()
  def drain_step(request, progress), do: message(:drain_step, [request, progress])

  @spec drain_done(id(), map()) :: message()
  def drain_done(request, report), do: message(:drain_done, [request, report])

  @doc "The refusal of a message of another version."
  @spec refuse_version(term()) :: message()
  def refuse_version(got), do: refuse(nil, {:version, if(is_integer(got) and got >= 0, do: got, else: 0), @version})

  defp message(kind, fields), do: List.to_tuple([@tag, @version, kind | fields])
end
