defmodule Verified do
  @moduledoc """
  Which suites ran on which version of DurableServer, and with which results: `stand_in/VERIFIED.md` and the
  files from which it is generated.

  `../verify VERSION` runs the suites with `Verified.Formatter`, which records the result of each in
  `stand_in/verified/VERSION.txt` and generates the page again. A test checks that the page matches the files.
  """

  @stand_in Path.expand("../../stand_in", __DIR__)
  @page Path.join(@stand_in, "VERIFIED.md")
  @results Path.join(@stand_in, "verified")

  @typedoc """
  The results of one suite. `failed` and `excluded` have names of tests; `excluded` also has the reason why
  the test does not apply to that version.
  """
  @type result :: %{
          suite: String.t(),
          date: String.t(),
          passed: non_neg_integer(),
          failed: [String.t()],
          excluded: [{String.t(), String.t()}]
        }

  @doc "Replaces the results of these suites for a version, and generates the page."
  @spec note(String.t(), [result()]) :: :ok
  def note(version, results) do
    old = if File.exists?(file(version)), do: read(version).results, else: []
    suites = for result <- results, do: result.suite
    kept = Enum.reject(old, &(&1.suite in suites))
    File.mkdir_p!(@results)
    File.write!(file(version), text(version, Enum.sort_by(kept ++ results, & &1.suite)))
    write_page()
  end

  @doc "Generates the page from the files."
  @spec write_page() :: :ok
  def write_page, do: File.write!(@page, page())

  @doc "The content of the page, from the files."
  @spec page() :: String.t()
  def page do
    versions = for path <- Enum.sort(Path.wildcard(Path.join(@results, "*.txt"))), do: read(Path.basename(path, ".txt"))
    primary = Recorded.stands_in_for()

    IO.iodata_to_binary([
      """
      # What was run on DurableServer itself

      Written by `./integration/verify`; do not edit. Versions are those of the Hex package `durable_server`; `VERSION+COMMIT` is a commit of its
      repository after that release. The suites are those of `integration/test`; the same tests run on the stand-in in CI.

      The stand-in gives the recorded answers of #{primary} (`test/vectors/contract/#{primary}.txt`), row by row.

      | version | #{Enum.join(suites(versions), " | ")} |
      |---|#{String.duplicate("---|", length(suites(versions)))}
      """,
      for(version <- versions, do: row(version, suites(versions))),
      for(version <- versions, do: section(version, primary))
    ])
  end

  @spec committed_page() :: String.t()
  def committed_page, do: File.read!(@page)

  defp suites(versions),
    do: versions |> Enum.flat_map(& &1.results) |> Enum.map(& &1.suite) |> Enum.uniq() |> Enum.sort()

  defp row(version, suites) do
    cells =
      for suite <- suites do
        case Enum.find(version.results, &(&1.suite == suite)) do
          nil -> "not run"
          result -> "#{result.passed} of #{result.passed + length(result.failed)}, #{result.date}"
        end
      end

    "| #{version.name} | #{Enum.join(cells, " | ")} |\n"
  end

  defp section(version, primary) do
    [
      "\n## #{version.name}\n\n#{version.platform}.\n",
      for result <- version.results, result.failed != [] do
        names("\nFailed tests, #{result.suite}:\n\n", result.failed)
      end,
      for result <- version.results, result.excluded != [] do
        excluded = for {name, why} <- result.excluded, do: "#{name}: #{why}"
        names("\nTests that do not apply to this version, #{result.suite}:\n\n", excluded)
      end,
      if(version.name == primary, do: [], else: differences(version.name, primary))
    ]
  end

  defp names(title, names), do: [title, for(name <- Enum.sort(names), do: "- #{name}\n")]

  # The rows of the contract in which this version gives other answers.
  defp differences(version, primary) do
    if File.exists?(Recorded.file(version)) do
      [theirs, ours] = for name <- [version, primary], do: Recorded.read(Recorded.file(name))
      rows = for {row, shape} <- Enum.sort(theirs), shape != ours[row], do: {row, shape, ours[row]}
      missing = Map.keys(ours) -- Map.keys(theirs)

      [
        "\nIts recorded answers differ from those of #{primary} in #{length(rows)} of #{map_size(theirs)} rows",
        if(missing == [], do: ".\n", else: "; #{length(missing)} rows are missing.\n"),
        for(
          {row, theirs, ours} <- rows,
          do: "\n    #{row}\n#{code(theirs)}\n    instead of\n#{code(ours || "no row")}\n"
        )
      ]
    else
      []
    end
  end

  defp code(text), do: text |> String.split("\n") |> Enum.map_join("\n", &("        " <> &1))

  defp file(version), do: Path.join(@results, version <> ".txt")

  defp text(version, results) do
    [
      "#{version}, Elixir #{System.version()}, OTP #{System.otp_release()}\n",
      for result <- results do
        [
          "\n#{result.suite} #{result.date} #{result.passed} passed, #{length(result.failed)} failed\n",
          for(name <- Enum.sort(result.failed), do: "  fails: #{name}\n"),
          for({name, why} <- Enum.sort(result.excluded), do: "  cannot: #{name} | #{why}\n")
        ]
      end
    ]
  end

  defp read(version) do
    [head | suites] = version |> file() |> File.read!() |> String.split("\n\n")
    [^version, platform] = String.split(head, ", ", parts: 2)
    %{name: version, platform: String.trim(platform), results: Enum.map(suites, &result/1)}
  end

  defp result(text) do
    [head | lines] = text |> String.trim_trailing() |> String.split("\n")
    [suite, date, passed | _rest] = String.split(head, " ")

    %{
      suite: suite,
      date: date,
      passed: String.to_integer(passed),
      failed: for("  fails: " <> name <- lines, do: name),
      excluded: for("  cannot: " <> line <- lines, do: line |> String.split(" | ", parts: 2) |> List.to_tuple())
    }
  end
end
