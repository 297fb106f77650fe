defmodule DurableHandoff.BoundaryTest do
  @moduledoc "A change of DurableServer is a change under `DurableHandoff.Host` and nowhere else."
  use ExUnit.Case, async: true

  @host_modules [:DurableServer, :Group]

  test "only DurableHandoff.Host and the modules under it name DurableServer, Group or their parts" do
    files = Path.wildcard("lib/**/*.ex")
    assert "lib/durable_handoff/host.ex" in files

    offenders =
      for file <- files,
          file != "lib/durable_handoff/host.ex" and not String.starts_with?(file, "lib/durable_handoff/host/"),
          name <- named(file),
          do: {file, name}

    assert offenders == []
  end

  # Only code counts; documentation may name them.
  defp named(file) do
    {_ast, names} =
      file
      |> File.read!()
      |> Code.string_to_quoted!()
      |> Macro.prewalk([], fn
        {:__aliases__, _meta, [first | _] = parts} = alias, names when first in @host_modules ->
          {alias, [Module.concat(parts) | names]}

        other, names ->
          {other, names}
      end)

    names
  end
end
