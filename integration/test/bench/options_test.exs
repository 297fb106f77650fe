defmodule HandoffBench.OptionsTest do
  use ExUnit.Case, async: true
  doctest HandoffBench.Options

  alias HandoffBench.Options

  for {argv, expected} <- [
        {["--server", "7"], "--server is not a flag of this bench"},
        {["--servers", "many"], ~s(--servers does not take "many")},
        {["7"], ~s(takes flags only, not "7")},
        {["--json", "/no/such/directory/x.json"], "the directory /no/such/directory does not exist"},
        {["--json", "/"], "is a directory"}
      ] do
    test "refused before anything is measured: #{Enum.join(argv, " ")}" do
      error = assert_raise Mix.Error, fn -> Options.parse!(unquote(argv), [servers: :integer], %{servers: 1}) end
      assert error.message =~ unquote(expected)
    end
  end
end
