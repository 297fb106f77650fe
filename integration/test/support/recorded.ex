defmodule Recorded do
  @moduledoc """
  Records the answers of the real DurableServer, and compares later answers with them.

      record(context, "start_child: already started", answer)

  On the real package with `HANDOFF_RECORD=VERSION` the contract suite writes its rows to
  `test/vectors/contract/VERSION.txt`. In every other run a row must be the same as in the committed file of
  the version that the stand-in imitates; a difference fails the test and names the row. A run of the whole
  suite that leaves out a committed row fails, too (`check/0`).

  A row is a shape (`Recorded.Shape`): no pid, no time, no text of the package.
  """

  import ExUnit.Assertions, only: [flunk: 1]

  alias Recorded.Shape

  @folder Path.expand("../../../test/vectors/contract", __DIR__)
  @stands_in_for "0.1.4+e197e4d"
  @rows __MODULE__

  @doc "Prepares for recording. To be called once, before the tests."
  @spec start() :: :ok
  def start do
    :ets.new(@rows, [:named_table, :public, :set])
    committed = if recording(), do: %{}, else: @stands_in_for |> file() |> read()
    :persistent_term.put(@rows, committed)
    ExUnit.after_suite(&ended/1)
    :ok
  end

  @doc """
  Records one row, or compares it with the committed one. Nodes, supervisor and prefix of the test get names
  in it; `names` has more, as `%{value => name}`.
  """
  @spec record(map(), String.t(), term(), %{term() => String.t()}) :: :ok
  def record(context, row, answer, names \\ %{}) do
    shape = Shape.of(answer, Map.merge(names(context), names))
    unless :ets.insert_new(@rows, {row, shape}), do: flunk("row #{inspect(row)} is recorded twice")
    committed = :persistent_term.get(@rows)

    cond do
      recording() -> :ok
      committed[row] == shape -> :ok
      true -> flunk(difference(row, committed[row], shape))
    end
  end

  @doc "The rows of a file, by name."
  @spec read(Path.t()) :: %{String.t() => String.t()}
  def read(path) do
    for part <- path |> File.read!() |> String.split("\n## ") |> tl(), into: %{} do
      [row, shape] = String.split(part, "\n", parts: 2)
      {row, String.trim_trailing(shape)}
    end
  end

  @doc "The version whose answers the stand-in gives."
  @spec stands_in_for() :: String.t()
  def stands_in_for, do: @stands_in_for

  @doc "The file of a version."
  @spec file(String.t()) :: Path.t()
  def file(version), do: Path.join(@folder, version <> ".txt")

  defp difference(row, nil, shape), do: "row #{inspect(row)} is not in the recorded answers; here it is\n\n#{shape}"

  defp difference(row, committed, shape),
    do: "row #{inspect(row)} differs. Recorded from DurableServer:\n\n#{committed}\n\nhere:\n\n#{shape}"

  defp recording, do: System.get_env("HANDOFF_RECORD")

  # Missing rows can be found only after a run of the whole suite. A version that fails some tests is recorded
  # as well, except the one with which all others are compared.
  defp ended(%{failures: failures}) do
    rows = :ets.tab2list(@rows)
    version = recording()

    cond do
      version && (failures == 0 or version != @stands_in_for) -> write(version, rows)
      version -> IO.puts(:stderr, "nothing recorded for #{version}: #{failures} tests failed")
      failures > 0 or not whole_suite?() -> :ok
      true -> check(Map.keys(:persistent_term.get(@rows)) -- for({row, _shape} <- rows, do: row))
    end
  end

  # VERIFIED.md is generated from these files.
  defp write(version, rows) do
    version |> file() |> File.write!(text(version, rows))
    if System.get_env("HANDOFF_VERIFY"), do: Verified.write_page()
  end

  defp check([]), do: :ok

  defp check(missing) do
    IO.puts(:stderr, "recorded answers that no test gave: #{Enum.join(Enum.sort(missing), "; ")}")
    System.at_exit(fn _status -> exit({:shutdown, 1}) end)
  end

  defp whole_suite?, do: Enum.all?(Path.wildcard(Path.expand("../contract/*_test.exs", __DIR__)), &loaded?/1)

  defp loaded?(path), do: Path.expand(path) in Code.required_files()

  defp text(version, rows) do
    [
      "What DurableServer #{version} answers. Written by the contract suite on that package; do not edit.\n",
      "Elixir #{System.version()}, OTP #{System.otp_release()}, #{Date.utc_today()}. Command, in integration/:\n",
      "HANDOFF_RECORD=#{version} DURABLE_SERVER=external ERL_LIBS=... mix test test/contract\n",
      for({row, shape} <- Enum.sort(rows), do: ["\n## ", row, "\n", shape, "\n"])
    ]
  end

  defp names(context) do
    nodes = context |> Map.get(:nodes, []) |> Enum.zip(~w(node_a node_b node_c))
    atoms = for {node, name} <- nodes, into: %{}, do: {node, name}
    strings = for {node, name} <- nodes, into: %{}, do: {Atom.to_string(node), name}
    sup = context[:sup]
    own = %{sup => "supervisor", context[:opts][:prefix] => "prefix"}

    own =
      for part <- ~w(dynamic task_sup), name = "#{sup}_#{part}", key <- [name, String.to_atom(name)], into: own do
        {key, "supervisor_#{part}"}
      end

    Enum.reduce([strings, own], atoms, &Map.merge/2) |> Map.delete(nil)
  end
end
