defmodule DurableHandoff.Leftovers.Adoption do
  @moduledoc false
  # An offer that a receiver has accepted: its servers, the receivers in line for them, and the state of each
  # server. Data only.
  #
  # An offer goes to a *line* of receivers. The first one adopts the servers, that is, starts them. Each of
  # the others waits until all receivers before it are gone or have stood down. Until then its servers are
  # `pending`; after that, or when they were forwarded to it, they are `entries`.
  #
  # Guarantee: an adoption that `new/3` returns is bounded and well formed, even if an invalid message was
  # sent.

  import DurableHandoff.Schema, only: [is_name: 1]

  alias DurableHandoff.Host.Takeover
  alias DurableHandoff.Leftovers.Message

  @version Message.version()
  @most_servers 100_000
  @longest_line 8
  # Enough for a drain, the graceful shutdown after it (55 s), a lock that must expire (50 s), and a margin.
  @lifetime_us 300_000_000

  @enforce_keys [:id, :source, :earlier, :later, :receivers, :pending, :accepted_us]
  defstruct @enforce_keys ++ [entries: %{}, total: 0, started: 0, running: 0, forwarded: 0, dropped: %{}]

  @typedoc """
    * `:waiting`: it still runs at the source, as far as this node knows;
    * `{:locked, lock}`: it may be started when its node has been dead for long enough;
    * `:queued`: it may be started when the pace allows;
    * `:trying`: a start runs;
    * `:resting`: it is tried again after a pause;
    * `{:forwarded, receiver}`: this node was full, and a later receiver is to start it.
  """
  @type phase :: :waiting | {:locked, Takeover.lock()} | :queued | :trying | :resting | {:forwarded, pid()}
  @type entry :: %{module: module(), phase: phase(), tries: non_neg_integer(), faults: non_neg_integer()}

  @type t :: %__MODULE__{
          id: reference(),
          source: node(),
          earlier: MapSet.t(pid()),
          later: [pid()],
          receivers: pos_integer(),
          pending: [{term(), module()}],
          accepted_us: integer(),
          entries: %{term() => entry()},
          total: non_neg_integer(),
          started: non_neg_integer(),
          running: non_neg_integer(),
          forwarded: non_neg_integer(),
          dropped: %{atom() => pos_integer()}
        }

  @doc "The largest number of servers in one offer."
  @spec most_servers() :: pos_integer()
  def most_servers, do: @most_servers

  @doc "Checks an offer that `receiver` got; `receiver` has to be in its line."
  @spec new(term(), pid(), integer()) :: {:ok, t()} | {:error, :malformed | :unsupported}
  def new(%{version: @version, id: id, source: source, servers: servers, line: line} = offer, receiver, now_us)
      when is_reference(id) and is_atom(source) and source != node() and is_list(servers) and is_list(line) do
    with true <- List.improper?(line) == false and length(line) <= @longest_line and Enum.all?(line, &is_pid/1),
         true <-
           List.improper?(servers) == false and length(servers) <= @most_servers and Enum.all?(servers, &server?/1),
         {earlier, [^receiver | later]} <- Enum.split_while(line, &(&1 != receiver)),
         receivers when is_integer(receivers) and receivers > 0 <- Map.get(offer, :receivers, length(line)) do
      {:ok,
       %__MODULE__{
         id: id,
         source: source,
         earlier: MapSet.new(earlier),
         later: later,
         receivers: receivers,
         pending: servers,
         accepted_us: now_us
       }}
    else
      _wrong -> {:error, :malformed}
    end
  end

  def new(%{version: version}, _receiver, _now_us) when version != @version, do: {:error, :unsupported}
  def new(_other, _receiver, _now_us), do: {:error, :malformed}

  @doc "Whether all receivers before this one are gone."
  @spec mine?(t()) :: boolean()
  def mine?(adoption), do: MapSet.size(adoption.earlier) == 0

  @doc "Removes a receiver that is gone or stood down from the line."
  @spec without(t(), pid()) :: t()
  def without(adoption, pid),
    do: %{adoption | earlier: MapSet.delete(adoption.earlier, pid), later: adoption.later -- [pid]}

  @doc """
  Turns all pending servers into entries, or only those with one of `keys`. Returns the new keys in their
  order.
  """
  @spec activate(t(), :all | [term()]) :: {t(), [term()]}
  def activate(adoption, :all), do: activate(%{adoption | pending: []}, adoption.pending, [])

  def activate(adoption, keys) do
    wanted = MapSet.new(keys)
    activate(adoption, Enum.filter(adoption.pending, fn {key, _module} -> key in wanted end), [])
  end

  defp activate(adoption, [], added),
    do: {%{adoption | total: adoption.total + length(added)}, Enum.reverse(added)}

  defp activate(adoption, [{key, _module} | rest], added) when is_map_key(adoption.entries, key),
    do: activate(adoption, rest, added)

  defp activate(adoption, [{key, module} | rest], added) do
    entry = %{module: module, phase: :waiting, tries: 0, faults: 0}
    activate(%{adoption | entries: Map.put(adoption.entries, key, entry)}, rest, [key | added])
  end

  @doc "Changes an entry."
  @spec put(t(), term(), keyword()) :: t()
  def put(adoption, key, changes) do
    %{adoption | entries: Map.update!(adoption.entries, key, &Map.merge(&1, Map.new(changes)))}
  end

  @doc "Removes an entry for good and counts why. One that was offered again counts in that adoption only."
  @spec settle(t(), term(), :started | :running | :forwarded | :offered_again | {:dropped, atom()}) :: t()
  def settle(adoption, key, why) do
    adoption = %{adoption | entries: Map.delete(adoption.entries, key)}

    case why do
      :started -> %{adoption | started: adoption.started + 1}
      :running -> %{adoption | running: adoption.running + 1}
      :forwarded -> %{adoption | forwarded: adoption.forwarded + 1}
      :offered_again -> %{adoption | total: adoption.total - 1}
      {:dropped, reason} -> %{adoption | dropped: Map.update(adoption.dropped, reason, 1, &(&1 + 1))}
    end
  end

  @doc "Removes all entries for the same reason, but those that were forwarded as such."
  @spec settle_all(t(), :forwarded | {:dropped, atom()}) :: t()
  def settle_all(adoption, why) do
    Enum.reduce(adoption.entries, %{adoption | pending: []}, fn
      {key, %{phase: {:forwarded, _receiver}}}, adoption -> settle(adoption, key, :forwarded)
      {key, _entry}, adoption -> settle(adoption, key, why)
    end)
  end

  @doc "The keys of the entries that still run at the source."
  @spec waiting(t()) :: [term()]
  def waiting(adoption), do: for({key, %{phase: :waiting}} <- adoption.entries, do: key)

  @doc "The keys of the entries that were forwarded, each with the receiver that is to start it."
  @spec forwarded(t()) :: [{term(), pid()}]
  def forwarded(adoption), do: for({key, %{phase: {:forwarded, receiver}}} <- adoption.entries, do: {key, receiver})

  @doc "Whether it was accepted more than five minutes ago."
  @spec expired?(t(), integer()) :: boolean()
  def expired?(adoption, now_us), do: now_us - adoption.accepted_us >= @lifetime_us

  @doc "The number of servers it holds: pending ones and entries."
  @spec size(t()) :: non_neg_integer()
  def size(adoption), do: length(adoption.pending) + map_size(adoption.entries)

  defp server?({_key, module}), do: is_name(module)
  defp server?(_other), do: false

  defimpl String.Chars do
    def to_string(adoption) do
      counts =
        for {text, count} <- [
              {"run elsewhere", adoption.running},
              {"forwarded", adoption.forwarded} | Enum.sort(adoption.dropped)
            ],
            count > 0,
            do: "#{text} #{count}"

      rest = if counts == [], do: "", else: " (#{Enum.join(counts, ", ")})"
      "started #{adoption.started} of #{adoption.total} servers that #{adoption.source} left#{rest}"
    end
  end
end
