defmodule DurableHandoff.Doctor do
  @moduledoc """
  Looks for what would keep a drain from working, and says what to do about it.

      $ mix durable_handoff.doctor                       # of a project: library, machine, versions
      $ mix durable_handoff.doctor --node app@10.0.0.7   # of a running node: all of it
      $ bin/my_app rpc 'DurableHandoff.Doctor.print()'   # the same, from a release

  | check | what it looks at |
  |---|---|
  | `:library` | whether the Rust libraries load on this system |
  | `:machine` | architecture, C library, Elixir and OTP |
  | `:durable_server` | whether servers can be moved with this version of DurableServer |
  | `:application` | whether the application `:durable_handoff` runs |
  | `:supervisors` | whether the supervisors run, and could be checked in time |
  | `:options` | the options of each supervisor with handoff that differ from the defaults |
  | `:budget` | how long a shutdown may take, and how long the platform waits |
  | `:mark` | whether this node takes servers |
  | `:cluster` | which nodes could take servers, which are not connected, do not answer, or have another name, prefix or store |
  | `:store` | whether the store answers, and refuses a conditional write that must fail |

  Guarantees: it changes nothing, except that it writes and deletes objects under keys of its own in a
  `DurableHandoff.Store`; the checks of one supervisor take at most 45 seconds; it does not raise because
  something that it looks at is missing or broken.
  """

  alias DurableHandoff.Doctor.{Environment, Supervised}
  alias DurableHandoff.{Schema, Status}

  @limit_ms 45_000

  @typedoc """
  `state`: `:ok`; `:note`, a fact, or a check that could not be made here; `:warning`, drains work, but not in
  every case or not as well as they could; `:problem`, drains do not work. `todo` is nil when there is nothing
  to do.
  """
  @type finding :: %{
          check: atom(),
          supervisor: nil | atom(),
          state: :ok | :note | :warning | :problem,
          text: String.t(),
          todo: nil | String.t()
        }

  @doc """
  All findings of this VM. Option: `supervisors:`, the names of the supervisors to check; by default all with
  handoff.
  """
  @spec run(keyword()) :: [finding()]
  def run(options \\ []) do
    supervisors = supervisors!(options)
    Environment.findings() ++ supervised(supervisors)
  end

  defp supervisors!(options) do
    case Keyword.keyword?(options) && Keyword.pop(options, :supervisors) do
      {nil, []} ->
        Status.supervisors()

      {names, []} ->
        for name <- List.wrap(names), do: Schema.supervisor_name!(name, "DurableHandoff.Doctor: :supervisors")

      _other ->
        raise ArgumentError, "DurableHandoff.Doctor got #{inspect(options)}, expected [supervisors: [MyApp.Durable]]"
    end
  end

  defp supervised([]) do
    todo =
      "ask a running node: mix durable_handoff.doctor --node NAME, or DurableHandoff.Doctor.print() in its console; " <>
        "if this VM is one, set handoff_on_shutdown"

    text = "options, budget, cluster and store are not checked: no supervisor with handoff runs in this VM"
    [%{check: :supervisors, supervisor: nil, state: :note, text: text, todo: todo}]
  end

  defp supervised(names), do: Enum.flat_map(names, &bounded/1)

  # A store or a node that hangs must not hang the console.
  defp bounded(name) do
    task = Task.async(fn -> guarded(name) end)

    case Task.yield(task, @limit_ms) || Task.shutdown(task, :brutal_kill) do
      {:ok, findings} ->
        findings

      _none ->
        text = "the checks did not end within #{div(@limit_ms, 1000)} s"
        [problem(name, text, "look at the store's latency, and whether the node is overloaded")]
    end
  end

  # The supervisor under examination may be stopping.
  defp guarded(name) do
    Supervised.findings(name)
  catch
    kind, reason ->
      text = "the checks ended with #{kind} #{inspect(reason, limit: 10, printable_limit: 200)}"
      [problem(name, text, "try again; if it stays so, look whether the supervisor keeps restarting")]
  end

  defp problem(name, text, todo),
    do: %{check: :supervisors, supervisor: name, state: :problem, text: text, todo: todo}

  @doc "Whether none of `findings` is a problem."
  @spec healthy?([finding()]) :: boolean()
  def healthy?(findings), do: Enum.all?(findings, &(&1.state != :problem))

  @doc "`findings` as text, with what to do below each one."
  @spec format([finding()]) :: String.t()
  def format(findings) do
    Enum.map_join(findings, "\n", fn finding ->
      subject = if finding.supervisor, do: "#{inspect(finding.supervisor)}: ", else: ""
      todo = if finding.todo, do: "\n-> " <> finding.todo, else: ""
      "#{pad(finding.state, 8)} #{pad(finding.check, 15)} " <> indent(subject <> finding.text <> todo)
    end)
  end

  defp indent(text), do: text |> String.trim() |> String.replace(~r/\n\s*/, "\n" <> String.duplicate(" ", 25))

  defp pad(name, width), do: name |> Atom.to_string() |> String.pad_trailing(width)

  @doc """
  Prints the findings of this VM on a console. Options as in `run/1`. Returns `:error` when there is a
  problem.
  """
  @spec print(keyword()) :: :ok | :error
  def print(options \\ []) do
    findings = run(options)
    IO.puts(format(findings))
    if healthy?(findings), do: :ok, else: :error
  end
end
