defmodule DurableHandoff.Wire.Reader do
  @moduledoc false
  # The fields of each kind of message that this side receives, checked before use.
  #
  # Guarantee: linear in the size of the message, which is bounded; never raises, also for improper lists and
  # structs.

  alias DurableHandoff.Drain.Progress
  alias DurableHandoff.Report

  @max_text 4_096
  @max_orders 10_000
  @max_problems 1_000
  # More than any release will announce.
  @max_goals 64
  # As many as a Rust node knows at most (`names` of its limits).
  @max_shares 100_000
  # The Rust side has numbers of 64 bits, and numbers servers with 32 bits.
  @max_number 0xFFFF_FFFF_FFFF_FFFF
  @max_server 0xFFFF_FFFF

  @type id :: non_neg_integer()
  @type received ::
          {:announce, pid(), %{release: String.t(), accepting: boolean(), goals: [String.t()]}}
          | {:opened | :started, id()}
          | {:orders, id(), [DurableHandoff.Native.action()]}
          | {:progress, id(), nil | Progress.waits_for()}
          | {:report, id(), map()}
          | {:refuse, nil | id(), reason()}
          | {:describe, id(), pid()}
          | {:drain_request, id(), pid(),
             %{supervisor: String.t(), timeout_ms: nil | non_neg_integer(), dry_run: boolean(), plan: boolean()}}
          | {:cordon_request, id(), pid(), %{supervisor: nil | String.t(), cordon: boolean()}}
          | {:move_request, id(), pid(),
             %{supervisor: String.t(), key: String.t(), to: nil | String.t(), timeout_ms: nil | non_neg_integer()}}
          | {:rebalance_request, id(), pid(),
             %{
               supervisor: String.t(),
               timeout_ms: nil | non_neg_integer(),
               dry_run: boolean(),
               after_ms: nil | non_neg_integer(),
               tolerance: nil | number(),
               min_servers: nil | non_neg_integer(),
               max_per_second: nil | non_neg_integer()
             }}
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

  defguardp is_number_of(value) when is_integer(value) and value >= 0 and value <= @max_number
  defguardp is_server(value) when is_integer(value) and value >= 0 and value <= @max_server

  @spec read(atom(), [term()]) :: {:ok, received()} | {:error, :kind | {:field, atom()}}
  def read(:announce, [pid, %{release: release, accepting: accepting} = info])
      when is_pid(pid) and is_boolean(accepting) do
    # Releases that can only drain do not announce goals.
    goals = Map.get(info, :goals, [])

    cond do
      not text?(release) -> {:error, {:field, :release}}
      not list_of?(goals, @max_goals, &text?/1) -> {:error, {:field, :goals}}
      true -> {:ok, {:announce, pid, %{release: release, accepting: accepting, goals: goals}}}
    end
  end

  def read(kind, [id]) when kind in [:opened, :started] and is_number_of(id), do: {:ok, {kind, id}}

  def read(:orders, [id, orders]) when is_number_of(id) do
    if list_of?(orders, @max_orders, &order?/1), do: {:ok, {:orders, id, orders}}, else: {:error, {:field, :orders}}
  end

  # The engine in this VM has the counts.
  def read(:progress, [id, %{} = progress]) when is_number_of(id),
    do: {:ok, {:progress, id, known(Map.get(progress, :waits_for), Progress.waits_for())}}

  def read(:report, [id, report]) when is_number_of(id) do
    with {:ok, report} <- report(report), do: {:ok, {:report, id, report}}
  end

  def read(:refuse, [id, reason]) when id == nil or is_number_of(id) do
    if reason?(reason), do: {:ok, {:refuse, id, reason}}, else: {:error, {:field, :reason}}
  end

  def read(:describe, [request, from]) when is_number_of(request) and is_pid(from),
    do: {:ok, {:describe, request, from}}

  def read(:drain_request, [request, from, %{dry_run: dry_run} = what])
      when is_number_of(request) and is_pid(from) and is_boolean(dry_run) do
    fields = [supervisor: &text?/1, timeout_ms: &optional_number?/1]

    # Releases before there was a plan message do not ask for one.
    with {:ok, {kind, request, from, fields}} <- request(:drain_request, request, from, what, fields),
         do: {:ok, {kind, request, from, Map.put(fields, :plan, Map.get(what, :plan) == true)}}
  end

  def read(:cordon_request, [request, from, %{cordon: cordon} = what])
      when is_number_of(request) and is_pid(from) and is_boolean(cordon),
      do: request(:cordon_request, request, from, what, supervisor: &optional_text?/1)

  def read(:move_request, [request, from, %{} = what]) when is_number_of(request) and is_pid(from) do
    fields = [supervisor: &text?/1, key: &text?/1, to: &optional_text?/1, timeout_ms: &optional_number?/1]
    request(:move_request, request, from, what, fields)
  end

  def read(:rebalance_request, [request, from, %{dry_run: dry_run} = what])
      when is_number_of(request) and is_pid(from) and is_boolean(dry_run) do
    numbers = for field <- [:timeout_ms, :after_ms, :min_servers, :max_per_second], do: {field, &optional_number?/1}
    fields = [supervisor: &text?/1, tolerance: &(&1 == nil or is_number(&1))] ++ numbers
    request(:rebalance_request, request, from, what, fields)
  end

  def read(kind, _fields)
      when kind in [:announce, :opened, :started, :orders, :progress, :report, :refuse, :describe, :drain_request] or
             kind in [:cordon_request, :move_request, :rebalance_request],
      do: {:error, {:field, :message}}

  def read(_unknown, _fields), do: {:error, :kind}

  # Optional keys may be absent. Unknown keys are left out.
  defp request(kind, request, from, what, checks) do
    fields = Map.new(checks, fn {name, _check} -> {name, Map.get(what, name)} end)

    case Enum.find(checks, fn {name, check} -> not check.(fields[name]) end) do
      nil -> {:ok, {kind, request, from, Map.merge(fields, Map.take(what, [:cordon, :dry_run]))}}
      {name, _check} -> {:error, {:field, name}}
    end
  end

  defp order?({:start, id, target, attempt, timeout_ms}) do
    is_server(id) and is_server(attempt) and is_number_of(timeout_ms) and text?(target)
  end

  defp order?({:release, id}), do: is_server(id)
  defp order?(order), do: order == :finish

  # Reads only the parts of a report that the source cannot know itself.
  defp report(%{total: total, moved: moved, left: %{} = left, concurrency: %{last: last}, ended: ended} = report)
       when is_number_of(total) and is_number_of(moved) and is_number_of(last) do
    left =
      for {reason, count} <- Map.take(left, Report.reasons()),
          is_number_of(count),
          into: %{},
          do: {reason, count}

    learnt = DurableHandoff.Drain.Learnt.checked(Map.get(report, :learnt))
    ended = known(ended, Report.endings())
    read = %{total: total, moved: moved, left: left, last: last, ended: ended, learnt: learnt}
    {:ok, Map.merge(read, balance(Map.get(report, :balance)))}
  end

  defp report(_other), do: {:error, {:field, :report}}

  # A later release may have words of its own.
  defp known(word, words), do: if(word in words, do: word)

  # Left out if it cannot be read: the source has one of its own.
  defp balance(%{idle: idle, excess: excess, before: before, after: later}) when is_number_of(excess) do
    if list_of?(before, @max_shares, &share?/1) and list_of?(later, @max_shares, &share?/1) do
      %{balance: %{idle: known(idle, Report.idles()), excess: excess, before: before, after: later}}
    else
      %{}
    end
  end

  defp balance(_none_or_unreadable), do: %{}

  defp share?(%{name: name, servers: servers, share: share} = node),
    do: map_size(node) == 3 and text?(name) and is_number_of(servers) and is_number(share)

  defp share?(_other), do: false

  defp reason?(reason) when reason in [:unknown_drain, :duplicate, :silent, :stopping, :failed], do: true
  defp reason?({:version, got, takes}), do: is_number_of(got) and is_number_of(takes)
  defp reason?({:invalid, problems}), do: list_of?(problems, @max_problems, &text?/1)
  defp reason?({:full, what, limit}), do: text?(what) and is_number_of(limit)
  defp reason?({:out_of_order, what}), do: text?(what)
  defp reason?(_unknown), do: false

  defp optional_text?(value), do: value == nil or text?(value)
  defp optional_number?(value), do: value == nil or is_number_of(value)

  defp text?(value), do: is_binary(value) and byte_size(value) <= @max_text and String.valid?(value)

  # A proper list of at most `most` elements, each as it should be.
  defp list_of?([], _most, _check), do: true
  defp list_of?([head | tail], most, check) when most > 0, do: check.(head) and list_of?(tail, most - 1, check)
  defp list_of?(_improper_or_longer, _most, _check), do: false
end
