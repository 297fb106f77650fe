defmodule DurableHandoff.GuidesTest do
  @moduledoc "The guides are complete: reasons, log lines and metrics are those of the code."
  use ExUnit.Case, async: true

  @root Path.expand("../../..", __DIR__)
  @sources Path.wildcard(Path.expand("../../lib/**/*.ex", __DIR__))

  test "each link between pages leads to a file and to a heading of it" do
    folders = ~w(*.md docs/**/*.md integration/*/*.md native/*/*.md test/**/*.md)
    pages = Enum.flat_map(folders, &Path.wildcard(Path.join(@root, &1)))
    assert length(pages) > 20

    dead =
      for page <- pages,
          text = without_code(File.read!(page)),
          [_whole, link] <- Regex.scan(~r/\]\(([^)\s]+)\)/, text),
          not (link =~ ~r/^(https?|mailto):/),
          not leads_somewhere?(page, link),
          do: {Path.relative_to(page, @root), link}

    assert dead == []
  end

  describe "troubleshooting" do
    setup do
      [_start | parts] = String.split(File.read!(guide("troubleshooting")), ~r/^## /m)
      parts = Map.new(parts, &(&1 |> String.split("\n", parts: 2) |> List.to_tuple()))

      {:ok,
       reasons: sections(parts["Why a server was not moved"]),
       lines: sections(parts["Log lines"]),
       alerts: parts["Alerts of the Rust node"]}
    end

    test "the guide lists each reason of servers that are left", %{reasons: reasons} do
      assert Enum.sort(Map.keys(reasons)) == Enum.sort(DurableHandoff.Report.reasons())
      complete!(reasons)
    end

    test "the guide lists each warning and error that the library logs", %{lines: lines} do
      logged = @sources |> Enum.flat_map(&logged/1) |> Enum.uniq()
      assert length(logged) > 20
      assert Enum.sort(Map.keys(lines)) == Enum.sort(logged)
      complete!(lines)
    end

    test "the guide lists each alert of the Rust node", %{alerts: alerts} do
      rules = File.read!(Path.join(@root, "docs/deployment/monitoring/alerts.yaml"))
      names = for [_, name] <- Regex.scan(~r/^ +- alert: (\w+)$/m, rules), do: String.to_atom(name)
      assert length(names) > 5
      alerts = sections(alerts || "")
      assert Enum.sort(Map.keys(alerts)) == Enum.sort(names)
      complete!(alerts)
    end

    test "DurableHandoff.Log lists each line that the library logs", %{lines: lines} do
      {:docs_v1, _, _, _, %{"en" => moduledoc}, _, _} = Code.fetch_docs(DurableHandoff.Log)
      for {event, _text} <- lines, do: assert(moduledoc =~ "`#{inspect(event)}`")
    end
  end

  test "the doctor's documentation lists each of its checks" do
    {:docs_v1, _, _, _, %{"en" => moduledoc}, _, _} = Code.fetch_docs(DurableHandoff.Doctor)
    listed = for [_, name] <- Regex.scan(~r/^\| `:(\w+)` \|/m, moduledoc), do: name
    source = @sources |> Enum.filter(&(&1 =~ ~r/doctor(\.ex|\/\w+\.ex)$/)) |> Enum.map_join(&File.read!/1)

    made =
      for [_, name] <-
            Regex.scan(~r/(?:check: |finding\(\s*|\{):(\w+),\s+(?::(?:ok|note|warning|problem)\b|supervisor:)/, source),
          do: name

    assert length(made) > 15
    assert Enum.sort(listed) == made |> Enum.uniq() |> Enum.sort()
  end

  describe "metrics" do
    setup do
      {:docs_v1, _, _, _, %{"en" => moduledoc}, _, _} = Code.fetch_docs(DurableHandoff.Telemetry)
      [_start | sections] = String.split(moduledoc, ~r/^### /m)
      events = Map.new(sections, &(&1 |> String.split("\n", parts: 2) |> List.to_tuple()))
      {:ok, events: events, metrics: metrics()}
    end

    test "each definition's event and measurement exist", %{events: events, metrics: metrics} do
      assert length(metrics) > 10

      for {type, name, options} <- metrics do
        {event, [measurement]} = name |> String.split(".") |> Enum.map(&String.to_atom/1) |> Enum.split(-1)
        assert section = events["`#{inspect(options[:event_name] || event)}`"], "#{name} is of no event"

        unless type == :counter or options[:measurement] do
          assert section =~ "`#{measurement}`", "#{name} is of no measurement"
        end
      end
    end

    test "no two definitions have the same name", %{metrics: metrics} do
      names = for {_type, name, _options} <- metrics, do: name
      assert names == Enum.uniq(names)
    end

    # Prometheus' reporter drops summaries.
    test "no definition is a summary, and each distribution has buckets", %{metrics: metrics} do
      for {type, name, options} <- metrics do
        assert type != :summary, "#{name} is a summary"
        if type == :distribution, do: assert([_ | _] = options[:reporter_options][:buckets], name)
      end
    end

    test "each tag is in the metadata, and has few values", %{metrics: metrics} do
      metadata = %{
        supervisor: MyApp.Durable,
        outcome: {:moved, :a@h},
        kind: :exit,
        reason: {:executor_lost, :a@h, :silent},
        operation: :call,
        result: :ok,
        report: %{gap_ms: %{p99: 12.5}}
      }

      for {_type, _name, options} <- metrics do
        tags = Keyword.get(options, :tag_values, & &1).(metadata)
        for tag <- options[:tags], do: assert(is_atom(Map.fetch!(tags, tag)))
        if measure = options[:measurement], do: assert(measure.(%{}, metadata) == 12.5)
      end
    end
  end

  # The definitions of the guide, as `{type, name, options}`. Telemetry.Metrics is not a dependency of this
  # project.
  defp metrics do
    [_whole, code] = Regex.run(~r/## Definitions\n\n```elixir\n(.*?)\n```/s, File.read!(guide("metrics")))

    functions =
      for type <- [:counter, :sum, :last_value, :summary, :distribution],
          do: "def #{type}(name, options), do: {:#{type}, name, options}"

    code = String.replace(code, "import Telemetry.Metrics", "import DurableHandoff.GuidesTest.Definitions")
    Code.eval_string("defmodule DurableHandoff.GuidesTest.Definitions do\n#{Enum.join(functions, "\n")}\nend\n" <> code)
    apply(MyApp.HandoffMetrics, :metrics, [])
  after
    for module <- [MyApp.HandoffMetrics, DurableHandoff.GuidesTest.Definitions] do
      :code.purge(module)
      :code.delete(module)
    end
  end

  defp guide(name), do: Path.join(@root, "docs/guides/#{name}.md")

  test "each documented module is in exactly one group, and each group's module is documented" do
    [_before, groups] = String.split(File.read!(Path.join(@root, "docs/ex_doc.exs")), "groups_for_modules:")
    [groups, _after] = String.split(groups, "main:", parts: 2)
    grouped = for [name] <- Regex.scan(~r/DurableHandoff[A-Za-z.]*/, groups), do: Module.concat([name])

    shown =
      for module <- Application.spec(:durable_handoff, :modules),
          match?({:docs_v1, _, _, _, %{"en" => _text}, _, _}, Code.fetch_docs(module)),
          not String.starts_with?(inspect(module), "Mix.Tasks."),
          file = module.module_info(:compile)[:source],
          String.contains?(to_string(file), "/lib/"),
          do: module

    assert Enum.sort(shown) == Enum.sort(grouped)
  end

  defp sections(text) do
    [_start | sections] = String.split(text, ~r/^### /m)

    events =
      Enum.map(sections, fn section -> section |> String.split("\n", parts: 2) |> List.to_tuple() |> titled() end)

    assert length(events) == length(Enum.uniq_by(events, &elem(&1, 0))), "a section is there twice"
    Map.new(events)
  end

  defp titled({title, text}) do
    [_whole, name] = Regex.run(~r/^`:?(\w+)`$/, title)
    {String.to_atom(name), text}
  end

  defp without_code(text), do: String.replace(text, ~r/^```.*?^```$/ms, "")

  defp leads_somewhere?(page, link) do
    [path | anchor] = String.split(link, "#", parts: 2)
    target = if path == "", do: page, else: Path.expand(path, Path.dirname(page))
    File.exists?(target) and (anchor == [] or Path.extname(target) != ".md" or hd(anchor) in anchors(target))
  end

  # As GitHub and ex_doc form them. Of an apostrophe ex_doc makes a hyphen, and GitHub nothing.
  defp anchors(page) do
    for [_whole, heading] <- Regex.scan(~r/^#+ ([^'\n]+)$/m, without_code(File.read!(page))) do
      heading |> String.downcase() |> String.replace(~r/[^\p{L}\p{N}_\- ]/u, "") |> String.replace(" ", "-")
    end
  end

  defp complete!(sections) do
    for {event, text} <- sections, part <- ["*Cause:* ", "*What to do:* "] do
      assert text =~ part, "#{inspect(event)} lacks #{part}"
    end
  end

  # The events of calls of Log that can be at warning or error: `write` chooses the level at run time.
  defp logged(file) do
    for {{:., _, [{:__aliases__, _, [:Log]}, name]}, _, arguments} <-
          file |> File.read!() |> Code.string_to_quoted!() |> Macro.prewalker(),
        event <- event(name, arguments),
        do: event
  end

  defp event(name, [event | _]) when name in [:warning, :error], do: [event]
  defp event(:write, [_level, event | _]), do: [event]
  defp event(:unexpected, [_supervisor, _message]), do: [:unexpected_message]
  defp event(_name, _arguments), do: []
end
