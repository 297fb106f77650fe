defmodule Store.TableTest do
  @moduledoc """
  The table in docs/STORES.md of the servers on which each test runs is generated from the tests.
  `HANDOFF_WRITE_TABLE=1 mix test` of this file writes it.
  """

  use ExUnit.Case, async: true

  @root Path.expand("../../..", __DIR__)
  @page Path.join(@root, "docs/STORES.md")
  @start "<!-- generated: integration/test/store/table_test.exs -->\n"
  @stop "<!-- end -->\n"
  # The modules of conformance_test.exs, under the names of their servers.
  @servers [
    {"S3Test", "moto, Ceph"},
    {"MinistackTest", "ministack"},
    {"AzureTest", "Azurite"},
    {"GoogleTest", "GCS in memory"},
    {"DirectoryTest", "directory"},
    {"MemoryTest", "memory"}
  ]

  test "docs/STORES.md lists the servers on which each test runs" do
    table = table()
    [before, rest] = String.split(File.read!(@page), @start)
    [written, rest] = String.split(rest, @stop)

    if System.get_env("HANDOFF_WRITE_TABLE") do
      File.write!(@page, [before, @start, table, @stop, rest])
    else
      assert written == table
    end
  end

  defp table do
    modules = modules()

    rows =
      for suite <- ["Store.Conformance", "Store.ServerConformance"], name <- tests(suite), do: row(name, suite, modules)

    heads = ["behaviour" | for({_module, server} <- @servers, do: server)]
    assert rows != []
    Enum.join([line(heads), line(Enum.map(heads, fn _ -> "---" end)) | rows])
  end

  defp row(name, suite, modules) do
    line([name | for({module, _server} <- @servers, do: if(suite in Map.fetch!(modules, module), do: "yes", else: ""))])
  end

  defp line(cells), do: "| " <> Enum.join(cells, " | ") <> " |\n"

  # Each module of conformance_test.exs with its suites.
  defp modules do
    for source <- String.split(read("integration/test/store/conformance_test.exs"), "defmodule Store.", trim: true),
        into: %{} do
      [module | _rest] = String.split(source, " ", parts: 2)
      {module, for([_all, suite] <- Regex.scan(~r/use (Store\.\w+),/, source), do: suite)}
    end
  end

  defp tests(suite) do
    file = "integration/test/support/" <> Macro.underscore(suite) <> ".ex"
    {:ok, ast} = Code.string_to_quoted(read(file))
    {_ast, names} = Macro.prewalk(ast, [], &test_name/2)
    Enum.reverse(names)
  end

  defp test_name({:describe, _meta, [prefix, [do: body]]}, names) do
    {_body, inner} = Macro.prewalk(body, [], &test_name/2)
    {:ok, Enum.map(inner, &"#{prefix} #{&1}") ++ names}
  end

  defp test_name({:test, _meta, [name | _rest]} = node, names) when is_binary(name), do: {node, [name | names]}
  defp test_name(node, names), do: {node, names}

  defp read(file), do: @root |> Path.join(file) |> File.read!()
end
