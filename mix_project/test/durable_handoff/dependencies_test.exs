defmodule DurableHandoff.DependenciesTest do
  @moduledoc "Which modules the library's modules name. Only code counts; documentation may name any."
  use ExUnit.Case, async: true

  setup_all do
    {:ok, files: Map.new(Path.wildcard("lib/**/*.ex"), &{&1, &1 |> File.read!() |> Code.string_to_quoted!()})}
  end

  # A change of DurableServer is a change under `DurableHandoff.Host` and nowhere else.
  test "only DurableHandoff.Host and the modules under it name DurableServer, Group or their parts", %{files: files} do
    {host, others} = Enum.split_with(files, fn {file, _ast} -> file =~ ~r"^lib/durable_handoff/host(/|\.ex$)" end)
    of_others = fn files -> for {file, ast} <- files, module <- named(ast), foreign?(module), do: {file, module} end
    assert of_others.(host) != []
    assert of_others.(others) == []
  end

  defp foreign?(module), do: hd(Module.split(module)) in ["DurableServer", "Group"]

  test "no two files depend on each other, not even through a type or an alias", %{files: files} do
    owners = for {file, ast} <- files, module <- defined(ast), into: %{}, do: {module, file}
    graph = :digraph.new()
    for {file, _ast} <- files, do: :digraph.add_vertex(graph, file)

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
    for {:defmodule, _meta, [{:__aliases__, _, parts} | _]} <- Macro.prewalker(ast), do: Module.concat(parts)
  end

  # Every module that the file uses, with aliases resolved. An alias alone does not count as use.
  defp named(ast) do
    {ast, aliases} = Macro.prewalk(ast, %{}, &take_alias/2)

    modules =
      for {:__aliases__, _meta, [first | rest]} when is_atom(first) <- Macro.prewalker(ast),
          do: Module.concat([Map.get(aliases, first, first) | rest])

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
