defmodule DurableHandoff.DependenciesTest do
  @moduledoc "The modules of the library have no dependency cycle, not even through a type or an alias."
  use ExUnit.Case, async: true

  @sources Path.wildcard(Path.expand("../../lib/**/*.ex", __DIR__))

  test "no two files depend on each other" do
    files = Map.new(@sources, &{&1, &1 |> File.read!() |> Code.string_to_quoted!()})
    owners = for {file, ast} <- files, module <- defined(ast), into: %{}, do: {module, file}
    graph = :digraph.new()
    for file <- @sources, do: :digraph.add_vertex(graph, file)

    for {file, ast} <- files,
        module <- named(ast),
        owner = owners[module],
        owner != file,
        do: :digraph.add_edge(graph, file, owner)

    assert map_size(files) > 50
    cycles = for component <- :digraph_utils.cyclic_strong_components(graph), do: Enum.map(component, &Path.basename/1)
    assert cycles == []
  end

  defp defined(ast) do
    {_ast, modules} =
      Macro.prewalk(ast, [], fn
        {:defmodule, _meta, [{:__aliases__, _, parts} | _]} = node, modules -> {node, [Module.concat(parts) | modules]}
        node, modules -> {node, modules}
      end)

    modules
  end

  # Every module that the file uses, with aliases resolved. An alias alone does not count as use.
  defp named(ast) do
    {ast, aliases} = Macro.prewalk(ast, %{}, &take_alias/2)

    {_ast, modules} =
      Macro.prewalk(ast, [], fn
        {:__aliases__, _meta, [first | rest]}, modules when is_atom(first) ->
          {nil, [Module.concat([Map.get(aliases, first, first) | rest]) | modules]}

        node, modules ->
          {node, modules}
      end)

    Enum.uniq(modules)
  end

  defp take_alias({:alias, _meta, [{{:., _, [{:__aliases__, _, base}, :{}]}, _, members}]}, aliases) do
    added = for {:__aliases__, _, parts} <- members, do: {List.last(parts), Module.concat(base ++ parts)}
    {nil, Map.merge(aliases, Map.new(added))}
  end

  defp take_alias({:alias, _meta, [{:__aliases__, _, parts}]}, aliases),
    do: {nil, Map.put(aliases, List.last(parts), Module.concat(parts))}

  defp take_alias({:alias, _meta, [{:__aliases__, _, parts}, [as: {:__aliases__, _, [as]}]]}, aliases),
    do: {nil, Map.put(aliases, as, Module.concat(parts))}

  defp take_alias(node, aliases), do: {node, aliases}
end
