defmodule DurableHandoff.Status do
  @moduledoc false
  # The state of a supervisor's drain, in a table that the Drainer owns and all processes may read:
  # `DurableHandoff.status/1` has to answer during a shutdown, too.
  #
  # A table of the application lists the supervisors that have or had a Drainer here. Without the application,
  # which a Drainer warns about when it starts, the list is empty.

  alias DurableHandoff.{Host, Options, Schema}
  alias DurableHandoff.Host.Mark
  alias DurableHandoff.Stopping.Moment

  @type t :: :ets.table()
  @type rebalance :: %{
          state: :idle | :running | :ended | :failed,
          progress: nil | map(),
          report: nil | struct(),
          waiting: non_neg_integer()
        }
  @type unknown :: {:unknown_supervisor, %{given: Host.name(), did_you_mean: nil | Host.name()}}
  @type state :: :idle | :draining | :drained | :cancelled | :failed

  @doc """
  Creates the list of supervisors, owned by the process that starts the application. Drainers that already run
  are added: they may have started before the application, or outlived an earlier start of it.
  """
  @spec init() :: :ok
  def init do
    :ets.new(__MODULE__, [:named_table, :public, read_concurrency: true])
    for table <- :ets.all(), supervisor = supervisor(table), do: put(__MODULE__, {supervisor})
    :ok
  end

  @doc "Creates the table of the calling Drainer, which owns it."
  @spec new(Host.name(), Options.t()) :: t()
  def new(supervisor, options) do
    table = :ets.new(table(supervisor), [:named_table, :public, read_concurrency: true])

    :ets.insert(table, options: options, state: :idle, progress: nil, by: nil, report: nil, marked: false, waiting: 0)
    :ets.insert(table, rebalance: %{state: :idle, report: nil, by: nil}, rebalance_progress: nil, rebalance_waiting: 0)
    put(__MODULE__, {supervisor})
    table
  end

  # Progress has its own row, because the process of the drain or rebalance writes it and the Drainer writes the rest.
  # One that the Drainer no longer waits for may still write, so `by` says whose progress counts.
  @spec put_draining(t(), by :: nil | pid()) :: true
  def put_draining(table, by), do: :ets.insert(table, state: :draining, by: by)

  @spec put_rebalancing(t(), by :: pid()) :: true
  def put_rebalancing(table, by),
    do: :ets.insert(table, rebalance: %{state: :running, report: last_rebalance(table), by: by})

  @spec put_rebalance_progress(t(), by :: pid(), map()) :: :ok
  def put_rebalance_progress(table, by, progress), do: put(table, rebalance_progress: {by, progress})

  @spec put_rebalance_waiting(t(), non_neg_integer()) :: true
  def put_rebalance_waiting(table, callers), do: :ets.insert(table, rebalance_waiting: callers)

  @spec put_rebalanced(t(), {:ok, report :: struct()} | {:error, term()}) :: true
  def put_rebalanced(table, {:ok, report}) do
    %{by: by} = rebalance(table)
    :ets.insert(table, rebalance: %{state: :ended, report: report, by: by})
  end

  def put_rebalanced(table, {:error, _reason}),
    do: :ets.insert(table, rebalance: %{state: :failed, report: last_rebalance(table), by: nil})

  defp last_rebalance(table), do: rebalance(table).report
  defp rebalance(table), do: :ets.lookup_element(table, :rebalance, 2)

  @spec put_waiting(t(), non_neg_integer()) :: true
  def put_waiting(table, callers), do: :ets.insert(table, waiting: callers)

  # The Drainer and its table may be gone while the drain that it started still runs.
  @spec put_progress(t(), by :: pid(), map()) :: :ok
  def put_progress(table, by, progress), do: put(table, progress: {by, progress})

  @spec put_result(t(), {:ok, report :: struct()} | {:error, term()}) :: true
  def put_result(table, {:ok, report}) do
    :ets.insert(table, state: if(report.ended == :cancelled, do: :cancelled, else: :drained))

    # A drain that found no server, such as the shutdown's after one from a console, does not replace the
    # report of the one before.
    if report.total > 0 or :ets.lookup_element(table, :report, 2) == nil,
      do: :ets.insert(table, report: report),
      else: true
  end

  def put_result(table, {:error, _reason}), do: :ets.insert(table, state: :failed)

  @doc "The whole table, nil when no Drainer runs for `supervisor`."
  @spec read(Host.name()) ::
          nil
          | %{
              options: Options.t(),
              state: state(),
              marked: boolean(),
              cordoned: boolean(),
              progress: nil | map(),
              report: nil | struct(),
              waiting: non_neg_integer(),
              rebalance: rebalance()
            }
  def read(supervisor) do
    case Map.new(:ets.tab2list(table(supervisor))) do
      %{options: _, state: _, marked: _, progress: _, report: _, waiting: _, rebalance: _} = status ->
        {more, status} = Map.split(status, [:by, :rebalance_progress, :rebalance_waiting])
        {by, rebalance} = Map.pop!(status.rebalance, :by)
        progress = of(by, more.rebalance_progress)
        rebalance = Map.merge(rebalance, %{progress: progress, waiting: more.rebalance_waiting})
        with_mark(%{status | rebalance: rebalance, progress: of(more.by, status.progress)}, supervisor)

      _being_made ->
        nil
    end
  rescue
    ArgumentError -> nil
  end

  defp of(by, {by, progress}), do: progress
  defp of(_by, _none_or_let_go_of), do: nil

  @doc "Whether a drain runs here, or waits for a rebalance to end."
  @spec draining?(Host.name()) :: boolean()
  def draining?(supervisor), do: match?(%{state: :draining}, read(supervisor))

  @doc """
  The error for a `supervisor` without a Drainer here: `:no_drainer`, `:supervisor_not_running` or an unknown
  name.
  """
  @spec absent(Host.name()) :: {:error, :no_drainer | :supervisor_not_running | unknown()}
  def absent(supervisor) do
    cond do
      Host.whereis(supervisor) != nil -> {:error, :no_drainer}
      read(supervisor) != nil -> {:error, :supervisor_not_running}
      true -> {:error, {:unknown_supervisor, %{given: supervisor, did_you_mean: nearest(supervisor)}}}
    end
  end

  defp nearest(supervisor), do: Schema.nearest(supervisor, supervisors())

  defp with_mark(status, supervisor) do
    final? = stopping?(supervisor)
    mark = Mark.mark(supervisor)
    Map.merge(status, %{marked: final? or mark != :none, cordoned: mark == :cordoned and not final?})
  end

  @doc "Notes that this node is about to be marked for good."
  @spec put_marked(Host.name()) :: :ok
  def put_marked(supervisor), do: put(table(supervisor), marked: true)

  @doc "Whether this node takes no servers for `supervisor`: it is cordoned, or marked draining for good."
  @spec marked?(Host.name()) :: boolean()
  def marked?(supervisor), do: stopping?(supervisor) or Mark.mark(supervisor) != :none

  @doc """
  Whether this node goes down, or was told to mark itself draining for good, even if it has not yet, or DurableServer
  has not answered.
  """
  @spec stopping?(Host.name()) :: boolean()
  def stopping?(supervisor), do: Moment.stopping?() or told_to_mark?(supervisor)

  defp told_to_mark?(supervisor) do
    :ets.lookup_element(table(supervisor), :marked, 2)
  rescue
    ArgumentError -> false
  end

  @doc """
  Notes whether the last event about this node's mark was of a cordon. The note outlives the supervisor's processes here,
  which may end before they have sent that the cordon has ended with them.
  """
  @spec put_cordon_told(Host.name(), boolean()) :: :ok
  def put_cordon_told(supervisor, told?), do: put(__MODULE__, {{:cordon_told, supervisor}, told?})

  @spec cordon_told?(Host.name()) :: boolean()
  def cordon_told?(supervisor) do
    :ets.lookup_element(__MODULE__, {:cordon_told, supervisor}, 2)
  rescue
    ArgumentError -> false
  end

  @doc "Whether there is a list of supervisors: the application runs."
  @spec listed?() :: boolean()
  def listed?, do: :ets.whereis(__MODULE__) != :undefined

  @doc "Every supervisor on this node that has a Drainer."
  @spec supervisors() :: [Host.name()]
  def supervisors do
    Enum.sort(for {name} <- :ets.tab2list(__MODULE__), :ets.whereis(table(name)) != :undefined, do: name)
  rescue
    ArgumentError -> []
  end

  # The owner of the table may be gone.
  defp put(table, row) do
    :ets.insert(table, row)
    :ok
  rescue
    ArgumentError -> :ok
  end

  @suffix "_handoff_status"
  defp table(supervisor), do: :"#{supervisor}#{@suffix}"

  # No Drainer is missed: it creates its table before it looks for the list, and the list exists before this
  # looks for tables.
  defp supervisor(table) when is_atom(table) do
    name = Atom.to_string(table)
    if String.ends_with?(name, @suffix), do: name |> String.replace_suffix(@suffix, "") |> String.to_atom()
  end

  defp supervisor(_table), do: nil
end
