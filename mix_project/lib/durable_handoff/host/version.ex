defmodule DurableHandoff.Host.Version do
  @moduledoc false
  # Which DurableServer runs here, and whether this library can work with it.
  #
  # Guarantee: what a version lacks is found when a supervisor with handoff starts, not in the middle of a
  # drain. A version that cannot move servers safely is refused, with advice. If less important functions are
  # missing, the log says what does not work. Versions on which the test suites did not run may work, and are
  # logged as not verified.

  alias DurableHandoff.Log

  # The first version that reserves a server during a move.
  @oldest "0.1.3"
  @verified ["0.1.3", "0.1.4"]

  @needed [
    {DurableServer.Supervisor, :rehome_child, [3]},
    {DurableServer.Supervisor, :ensure_started_child, [3]},
    {DurableServer.Supervisor, :lookup, [2]},
    {DurableServer.Supervisor, :__get_config__, [1]},
    {DurableServer.Supervisor, :__local_global_members__, [1]},
    {DurableServer.LifecycleManager, :stop_discovery, [2, 1]},
    {DurableServer, :fetch_stored_state, [3]},
    {DurableServer, :clear_restart_attempt, [2]}
  ]

  @wanted [
    {DurableServer.Supervisor, :node_ref, [1], "nodes of one name are not distinguished by their start"},
    {DurableServer.Supervisor, :current_capacity, [1], "limits are known from heartbeats alone"},
    {DurableServer.Supervisor, :__get_sticky_placement_for_module__, [2], "sticky placement is ignored"},
    {DurableServer.Supervisor, :get_server_info, [2], "`eligible: :permanent` moves every server"},
    {DurableServer.LifecycleManager, :lookup_node_health, [1], "leftovers of a node that died wait for a sweep"},
    {Group, :members, [2], "heartbeats come from the store alone"},
    {Group, :monitor, [2], "callers poll for new owners"},
    {Group, :demonitor, [2], "callers poll for new owners"}
  ]

  @typedoc """
  Facts about DurableServer: its version (nil if it is not an application of this VM), and a function that
  says whether it exports a given function.
  """
  @type facts :: %{version: String.t() | nil, exported?: (module(), atom(), arity() -> boolean())}

  @doc "The released versions that the suites were run on: `integration/stand_in/VERIFIED.md`."
  @spec verified() :: [String.t()]
  def verified, do: @verified

  @doc "DurableServer of this VM."
  @spec facts() :: facts()
  def facts do
    _ = Application.load(:durable_server)
    version = Application.spec(:durable_server, :vsn)
    %{version: version && to_string(version), exported?: &exported?/3}
  end

  @doc "Raises `ArgumentError` unless servers can be moved with this host."
  @spec check!(facts()) :: :ok
  def check!(facts \\ facts()) do
    cond do
      older?(facts.version, @oldest) ->
        refuse(
          "DurableServer #{facts.version} does not reserve a server while it moves: other nodes could start it meanwhile."
        )

      (missing = missing(@needed, facts)) != [] ->
        refuse("DurableServer #{name(facts)} lacks functions that durable_handoff needs: #{Enum.join(missing, ", ")}.")

      true ->
        :ok
    end
  end

  @doc """
  What is logged about DurableServer at start: level `:info` if it has all functions that this library uses,
  else `:warning` with what does not work.

      iex> {:info, "DurableServer 0.1.4 (verified)"} =
      ...>   DurableHandoff.Host.Version.describe(%{version: "0.1.4", exported?: fn _, _, _ -> true end})
  """
  @spec describe(facts()) :: {:info | :warning, String.t()}
  def describe(facts \\ facts()) do
    verified =
      if facts.version in @verified, do: "verified", else: "not verified; verified: #{Enum.join(@verified, ", ")}"

    found = "DurableServer #{name(facts)} (#{verified})"

    case for {module, function, arities, lost} <- @wanted,
             not has?({module, function, arities}, facts),
             do: {shown({module, function, arities}), lost} do
      [] ->
        {:info, found}

      lacks ->
        {:warning, found <> " lacks " <> Enum.map_join(lacks, "; ", fn {function, lost} -> "#{function}: #{lost}" end)}
    end
  end

  @doc "Logs it for the supervisor `name`."
  @spec announce(DurableHandoff.Host.name()) :: :ok
  def announce(name) do
    {level, text} = describe()
    Log.write(level, :durable_server, name, text, version: facts().version)
  end

  defp refuse(why) do
    raise ArgumentError, """
    #{why}
    Set {:durable_server, "~> 0.1 and >= #{@oldest}"} in the deps in mix.exs and run `mix deps.update durable_server`; until then leave \
    handoff_on_shutdown: out.\
    """
  end

  defp missing(functions, facts), do: for(function <- functions, not has?(function, facts), do: shown(function))

  defp has?({module, function, arities}, facts), do: Enum.any?(arities, &facts.exported?.(module, function, &1))

  defp shown({module, function, [arity | _others]}), do: "#{inspect(module)}.#{function}/#{arity}"

  defp older?(version, than) do
    with version when is_binary(version) <- version, {:ok, version} <- Version.parse(version) do
      Version.compare(version, than) == :lt
    else
      # Without a version, its functions are checked.
      _unknown -> false
    end
  end

  defp name(facts), do: facts.version || "of unknown version"

  defp exported?(module, function, arity),
    do: Code.ensure_loaded?(module) and function_exported?(module, function, arity)
end
