defmodule DurableHandoff.ExamplesTest do
  use ExUnit.Case, async: true

  # The examples of every module's documentation are right, also those of modules that only this project uses.
  {:ok, modules} = :application.get_key(:durable_handoff, :modules)

  for module <- modules do
    doctest module
  end
end
