defmodule DurableHandoff.GuidesTest do
  @moduledoc "The guides have what the code has."
  use ExUnit.Case, async: true

  @root Path.expand("../../..", __DIR__)
  @sources Path.wildcard(Path.expand("../../lib/**/*.ex", __DIR__))

  describe "troubleshooting" do
    setup do
      text = File.read!(Path.join(@root, "docs/guides/troubleshooting.md"))
      [_start, reasons, lines] = String.split(text, ~r/^## .*$/m)
      {:ok, reasons: sections(reasons), lines: sections(lines)}
    end

    test "a reason why servers are left is missing in the guide", %{reasons: reasons} do
      assert Enum.sort(Map.keys(reasons)) == Enum.sort(DurableHandoff.Report.reasons())
      complete!(reasons)
    end

    test "a warning or an error that the library logs is missing in the guide", %{lines: lines} do
      logged = @sources |> Enum.flat_map(&logged/1) |> Enum.uniq()
      assert length(logged) > 20
      assert Enum.sort(Map.keys(lines)) == Enum.sort(logged)
      complete!(lines)
    end

    test "a line that the library logs is missing in the documentation of DurableHandoff.Log", %{lines: lines} do
      {:docs_v1, _, _, _, %{"en" => moduledoc}, _, _} = Code.fetch_docs(DurableHandoff.Log)
      for {event, _text} <- lines, do: assert(moduledoc =~ "`#{inspect(event)}`")
    end
  end

  test "an event in the guide about metrics does not exist" do
    text = File.read!(Path.join(@root, "docs/guides/metrics.md"))
    {:docs_v1, _, _, _, %{"en" => moduledoc}, _, _} = Code.fetch_docs(DurableHandoff.Telemetry)
    names = Regex.scan(~r/"durable_handoff\.([a-z_.]+)\.([a-z0-9_]+)"/, text, capture: :all_but_first)
    assert length(names) > 10

    for [event, measurement] <- names, measurement != "gap_p99_ms" do
      event = "[:durable_handoff, #{event |> String.split(".") |> Enum.map_join(", ", &":#{&1}")}]"
      assert [_before, section] = String.split(moduledoc, "### `#{event}`\n"), "#{event} is no event"
      # `:exception` has the measurements of `:stop`.
      assert section =~ "`#{measurement}`"
    end
  end

  defp sections(text) do
    [_start | sections] = String.split(text, ~r/^### /m)
    Map.new(sections, fn section -> section |> String.split("\n", parts: 2) |> List.to_tuple() |> event() end)
  end

  defp event({title, text}) do
    [_whole, name] = Regex.run(~r/^`:([a-z_]+)`$/, title)
    {String.to_atom(name), text}
  end

  defp complete!(sections) do
    for {event, text} <- sections, part <- ["*Cause:* ", "*What to do:* "] do
      assert text =~ part, "#{inspect(event)} lacks #{part}"
    end
  end

  # The events of calls of Log that can be at warning or error: `write` chooses the level at run time.
  defp logged(file) do
    {_ast, events} =
      file
      |> File.read!()
      |> Code.string_to_quoted!()
      |> Macro.prewalk([], fn
        {{:., _, [{:__aliases__, _, [:Log]}, name]}, _, [event | _]} = node, events when name in [:warning, :error] ->
          {node, [event | events]}

        {{:., _, [{:__aliases__, _, [:Log]}, :write]}, _, [_level, event | _]} = node, events ->
          {node, [event | events]}

        node, events ->
          {node, events}
      end)

    events
  end
end
