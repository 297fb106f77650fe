defmodule GuaranteesTest do
  @moduledoc "Each guarantee is worded in the same way everywhere, and at least one test has its tag."

  use ExUnit.Case, async: true

  @root Path.expand("../..", __DIR__)

  test "each guarantee of the README has a test, and each tagged test names a guarantee of the README" do
    assert tagged() == MapSet.new(promised())
  end

  test "DurableHandoff's documentation and ARCHITECTURE.md have the guarantees in the same words" do
    for page <- ["mix_project/lib/durable_handoff.ex", "docs/ARCHITECTURE.md"], guarantee <- promised() do
      assert read(page) =~ "**" <> guarantee, "#{page} does not say: #{guarantee}"
    end
  end

  defp promised do
    [_before, section] = String.split(read("README.md"), "\n## Guarantees\n")
    [section | _after] = String.split(section, "\n## ")
    found = for [_all, words] <- Regex.scan(~r/^- \*\*(.+?)[.,]?\*\*/m, section), do: words
    assert found != []
    found
  end

  defp tagged do
    files = Path.wildcard(Path.join(@root, "{integration,mix_project}/test/**/*_test.exs"))

    for file <- files -- [__ENV__.file],
        [_all, words] <- Regex.scan(~r/@tag guarantee: "(.+)"$/m, File.read!(file)),
        into: MapSet.new(),
        do: words
  end

  defp read(page), do: @root |> Path.join(page) |> File.read!()
end
