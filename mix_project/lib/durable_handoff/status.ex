defmodule DurableHandoff.Status do
  @moduledoc false
  # What a supervisor's drain is doing, in a table that the Drainer owns and anybody may read: `DurableHandoff.status/1` has to answer
  # while the Drainer is busy draining in its terminate/2.

  alias DurableHandoff.{Host, Options, Report}

  @suffix "_handoff_status"

  @type t :: :ets.table()
  @type state :: :idle | :draining | :drained | :failed

  @doc "The table of the calling Drainer. It goes when the Drainer goes."
  @spec new(Host.name(), Options.t()) :: t()
  def new(supervisor, options) do
    table = :ets.new(table(supervisor), [:named_table, :public, read_concurrency: true])
    :ets.insert(table, supervisor: supervisor, options: options, state: :idle, progress: nil, report: nil)
    table
  end

  @spec draining(t()) :: true
  def draining(table), do: :ets.insert(table, state: :draining, progress: nil)

  # The Drainer may be gone, and the table with it, while the drain it started settles.
  @spec progress(t(), map()) :: :ok
  def progress(table, progress) do
    :ets.insert(table, progress: progress)
    :ok
  rescue
    ArgumentError -> :ok
  end

  @spec ended(t(), {:ok, Report.t()} | {:error, term()}) :: true
  def ended(table, {:ok, report}), do: :ets.insert(table, state: :drained, report: report)
  def ended(table, {:error, _reason}), do: :ets.insert(table, state: :failed)

  @doc "All that is known, nil when no Drainer runs for `supervisor`."
  @spec read(Host.name()) ::
          %{options: Options.t(), state: state(), progress: nil | map(), report: nil | Report.t()} | nil
  def read(supervisor) do
    case Map.new(:ets.tab2list(table(supervisor))) do
      %{options: _, state: _, progress: _, report: _} = status -> status
      _being_made -> nil
    end
  rescue
    ArgumentError -> nil
  end

  @doc "Every supervisor on this node that has a Drainer."
  @spec supervisors() :: [Host.name()]
  def supervisors do
    Enum.sort(for table <- :ets.all(), is_atom(table), name = supervisor(table), do: name)
  end

  defp supervisor(table) do
    if String.ends_with?(Atom.to_string(table), @suffix), do: :ets.lookup_element(table, :supervisor, 2)
  rescue
    # Gone since, or somebody else's.
    ArgumentError -> nil
  end

  defp table(supervisor), do: :"#{supervisor}#{@suffix}"
end
