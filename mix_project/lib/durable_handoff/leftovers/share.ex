defmodule DurableHandoff.Leftovers.Share do
  @moduledoc """
  One share of what a drain left: which servers, who starts them, and how far that is. Data only.

  A share goes to a *line* of receivers. The first one, its owner, starts the servers; each of the others waits until all before it are
  gone or have stood down. Until then its servers are in `standby`; after that, or when they were passed on to it, they are `entries`.

  Guarantee: what `new/3` accepts is bounded and of the right shape, whatever was sent.
  """

  alias DurableHandoff.Host.Existing

  @version 1
  @most_servers 100_000
  @longest_line 8
  # A drain, the graceful shutdown after it (55 s) and a lock that has to expire (50 s), with room to spare.
  @lifetime_ms 300_000

  @enforce_keys [:id, :source, :earlier, :later, :standby, :received_ms]
  defstruct @enforce_keys ++ [entries: %{}, total: 0, started: 0, running: 0, passed_on: 0, dropped: %{}]

  @typedoc """
    * `:waiting`: it still runs at the source, as far as is known here;
    * `{:locked, lock}`: a node must be seen dead for long enough first;
    * `:queued`: it may be tried; `:trying`; `:resting`: it is tried again in a while.
  """
  @type phase :: :waiting | {:locked, Existing.lock()} | :queued | :trying | :resting
  @type entry :: %{module: module(), phase: phase(), tries: non_neg_integer(), faults: non_neg_integer()}

  @type t :: %__MODULE__{
          id: reference(),
          source: node(),
          earlier: MapSet.t(pid()),
          later: [pid()],
          standby: [{term(), module()}],
          received_ms: integer(),
          entries: %{term() => entry()},
          total: non_neg_integer(),
          started: non_neg_integer(),
          running: non_neg_integer(),
          passed_on: non_neg_integer(),
          dropped: %{atom() => pos_integer()}
        }

  @type message :: %{
          version: pos_integer(),
          id: reference(),
          source: node(),
          servers: [{term(), module()}],
          line: [pid(), ...]
        }

  @doc "How many servers one share may have."
  @spec most_servers() :: pos_integer()
  def most_servers, do: @most_servers

  @doc "What is sent to each receiver of `line`."
  @spec message(reference(), node(), [{term(), module()}], [pid(), ...]) :: message()
  def message(id, source, servers, line),
    do: %{version: @version, id: id, source: source, servers: servers, line: line}

  @doc "The share as `receiver` sees it, which has to be in its line."
  @spec new(term(), pid(), integer()) :: {:ok, t()} | {:error, :malformed | :unsupported}
  def new(%{version: @version, id: id, source: source, servers: servers, line: line}, receiver, now_ms)
      when is_reference(id) and is_atom(source) and source != node() and is_list(servers) and is_list(line) do
    with true <- List.improper?(line) == false and length(line) <= @longest_line and Enum.all?(line, &is_pid/1),
         true <-
           List.improper?(servers) == false and length(servers) <= @most_servers and Enum.all?(servers, &server?/1),
         {earlier, [^receiver | later]} <- Enum.split_while(line, &(&1 != receiver)) do
      {:ok,
       %__MODULE__{
         id: id,
         source: source,
         earlier: MapSet.new(earlier),
         later: later,
         standby: servers,
         received_ms: now_ms
       }}
    else
      _wrong -> {:error, :malformed}
    end
  end

  def new(%{version: version}, _receiver, _now_ms) when version != @version, do: {:error, :unsupported}
  def new(_other, _receiver, _now_ms), do: {:error, :malformed}

  @doc "Whether all receivers before this one are gone."
  @spec mine?(t()) :: boolean()
  def mine?(share), do: MapSet.size(share.earlier) == 0

  @doc "The share without a receiver that is gone or stood down."
  @spec without(t(), pid()) :: t()
  def without(share, pid), do: %{share | earlier: MapSet.delete(share.earlier, pid), later: share.later -- [pid]}

  @doc "All servers on standby become entries; or only those with one of `keys`. The new ones, in their order."
  @spec activate(t(), :all | [term()]) :: {t(), [term()]}
  def activate(share, :all), do: activate(%{share | standby: []}, share.standby, [])

  def activate(share, keys) do
    wanted = MapSet.new(keys)
    activate(share, Enum.filter(share.standby, fn {key, _module} -> key in wanted end), [])
  end

  defp activate(share, [], added), do: {%{share | total: share.total + length(added)}, Enum.reverse(added)}

  defp activate(share, [{key, _module} | rest], added) when is_map_key(share.entries, key),
    do: activate(share, rest, added)

  defp activate(share, [{key, module} | rest], added) do
    entry = %{module: module, phase: :waiting, tries: 0, faults: 0}
    activate(%{share | entries: Map.put(share.entries, key, entry)}, rest, [key | added])
  end

  @doc "Changes an entry."
  @spec put(t(), term(), keyword()) :: t()
  def put(share, key, changes) do
    %{share | entries: Map.update!(share.entries, key, &Map.merge(&1, Map.new(changes)))}
  end

  @doc "Takes an entry out for good and counts why: `:started`, `:running`, `:passed_on`, or `{:dropped, reason}`."
  @spec settle(t(), term(), :started | :running | :passed_on | {:dropped, atom()}) :: t()
  def settle(share, key, why) do
    share = %{share | entries: Map.delete(share.entries, key)}

    case why do
      :started -> %{share | started: share.started + 1}
      :running -> %{share | running: share.running + 1}
      :passed_on -> %{share | passed_on: share.passed_on + 1}
      {:dropped, reason} -> %{share | dropped: Map.update(share.dropped, reason, 1, &(&1 + 1))}
    end
  end

  @doc "Takes all entries out for the same reason."
  @spec settle_all(t(), :passed_on | {:dropped, atom()}) :: t()
  def settle_all(share, why), do: Enum.reduce(Map.keys(share.entries), %{share | standby: []}, &settle(&2, &1, why))

  @doc "The keys in that phase."
  @spec in_phase(t(), (phase() -> boolean())) :: [term()]
  def in_phase(share, phase?), do: for({key, %{phase: phase}} <- share.entries, phase?.(phase), do: key)

  @doc "Whether it has been here for too long."
  @spec expired?(t(), integer()) :: boolean()
  def expired?(share, now_ms), do: now_ms - share.received_ms >= @lifetime_ms

  @doc "How many servers are held."
  @spec size(t()) :: non_neg_integer()
  def size(share), do: length(share.standby) + map_size(share.entries)

  defp server?({_key, module}) when is_atom(module) and module not in [nil, true, false], do: true
  defp server?(_other), do: false

  defimpl String.Chars do
    def to_string(share) do
      counts =
        for {text, count} <- [
              {"run elsewhere", share.running},
              {"passed on", share.passed_on} | Enum.sort(share.dropped)
            ],
            count > 0,
            do: "#{text} #{count}"

      rest = if counts == [], do: "", else: " (#{Enum.join(counts, ", ")})"
      "started #{share.started} of #{share.total} servers that #{share.source} left#{rest}"
    end
  end
end
