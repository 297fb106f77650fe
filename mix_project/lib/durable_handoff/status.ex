defmodule DurableHandoff.Status do
  @moduledoc false
  # What a supervisor's drain is doing, in a table that the Drainer owns and all processes may read:
  # `DurableHandoff.status/1` has to answer while the Drainer is busy draining in its terminate/2.

  alias DurableHandoff.{Host, Options, Report}

  @suffix "_handoff_status"

  @type t :: :ets.table()
  @type state :: :idle | :draining | :drained | :cancelled | :failed

  @doc "The table of the calling Drainer. It goes when the Drainer goes."
  @spec new(Host.name(), Options.t()) :: t()
  def new(supervisor, options) do
    table = :ets.new(table(supervisor), [:named_table, :public, read_concurrency: true])

    :ets.insert(table, supervisor: supervisor, options: options, state: :idle, progress: nil, report: nil, marked: false)

    table
  end

  @spec draining(t()) :: true
  def draining(table), do: :ets.insert(table, state: :draining, progress: nil, marked: true)

  # The Drainer may be gone, and the table with it, while the drain it started settles.
  @spec progress(t(), map()) :: :ok
  def progress(table, progress) do
    :ets.insert(table, progress: progress)
    :ok
  rescue
    ArgumentError -> :ok
  end

  @spec ended(t(), {:ok, Report.t()} | {:error, term()}) :: true
  def ended(table, {:ok, report}) do
    :ets.insert(table, state: if(report.ended == :cancelled, do: :cancelled, else: :drained))

    # A drain that found no server, such as the shutdown's after one from a console, does not replace the
    # report of the one before.
    if report.total > 0 or :ets.lookup_element(table, :report, 2) == nil,
      do: :ets.insert(table, report: report),
      else: true
  end

  def ended(table, {:error, _reason}), do: :ets.insert(table, state: :failed)

  @doc "All that is known, nil when no Drainer runs for `supervisor`."
  @spec read(Host.name()) ::
          nil
          | %{
              options: Options.t(),
              state: state(),
              marked: boolean(),
              progress: nil | map(),
              report: nil | Report.t()
            }
  def read(supervisor) do
    case Map.new(:ets.tab2list(table(supervisor))) do
      %{options: _, state: _, marked: _, progress: _, report: _} = status -> Map.delete(status, :supervisor)
      _being_made -> nil
    end
  rescue
    ArgumentError -> nil
  end

  # The Drainer may be gone.
  @spec mark(Host.name()) :: :ok
  def mark(supervisor) do
    :ets.insert(table(supervisor), marked: true)
    :ok
  rescue
    ArgumentError -> :ok
  end

  @doc "Whether this node was marked draining for `supervisor`: there is no way back."
  @spec marked?(Host.name()) :: boolean()
  def marked?(supervisor) do
    :ets.lookup_element(table(supervisor), :marked, 2)
  rescue
    ArgumentError -> false
  end

  @doc "Every supervisor on this node that has a Drainer."
  @spec supervisors() :: [Host.name()]
  def supervisors do
    Enum.sort(for table <- :ets.all(), is_atom(table), name = supervisor(table), do: name)
  end

  defp supervisor(table) do
    if String.ends_with?(Atom.to_string(table), @suffix), do: :ets.lookup_element(table, :supervisor, 2)
  rescue
    # Gone since, or owned by another process.
    ArgumentError -> nil
  end

  defp table(supervisor), do: :"#{supervisor}#{@suffix}"
end
