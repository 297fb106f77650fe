defmodule DurableHandoff.Rebalance do
  @moduledoc false
  # Moves what this node carries above its share of all servers: `DurableHandoff.rebalance/2`, and the option
  # `rebalance`.
  #
  # A rebalance is a drain with another goal (`DurableHandoff.Drain`): the engine says how many servers are above
  # the share, and which move where. It moves no server that arrived within `after_ms`, and none that policy
  # keeps. The Drainer runs it, so it and a drain never run at the same time, and a drain ends it.

  alias DurableHandoff.{Drainer, Host, Options, Plan, Schema, Status}

  @type result ::
          {:ok, DurableHandoff.Report.t() | Plan.t() | :started | :joined}
          | {:error, atom() | Status.unknown() | {:drain_failed, term()} | {:invalid, [String.t()]}}

  @doc "Rebalances now. `overrides` are options of `rebalance`, `dry_run:` and `await:`."
  @spec run(Host.name(), keyword()) :: result()
  def run(supervisor, overrides) do
    # Also where no Drainer runs.
    Schema.keyword!(overrides, "invalid options:", "a keyword list such as [dry_run: true]")
    {dry_run?, overrides} = Schema.flag!(overrides, :dry_run, false)
    {await?, overrides} = Schema.flag!(overrides, :await, true)

    case Status.read(supervisor) do
      nil ->
        Status.absent(supervisor)

      %{options: options} ->
        {options, settings} = Options.rebalance(options, overrides, [:dry_run, :await])

        cond do
          Host.whereis(supervisor) == nil -> {:error, :supervisor_not_running}
          dry_run? -> Plan.make(supervisor, options, {:rebalance, settings})
          await? and Host.calls_itself?(supervisor) -> {:error, :calling_self}
          true -> Drainer.rebalance(supervisor, options, settings, await?)
        end
    end
  end
end
