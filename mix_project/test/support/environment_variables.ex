defmodule DurableHandoff.EnvironmentVariables do
  @moduledoc false

  @doc "Sets environment variables (`nil` removes one) until the test ends."
  @spec put_variables(%{String.t() => String.t() | nil}) :: :ok
  def put_variables(variables) do
    before = Map.new(variables, fn {name, _value} -> {name, System.get_env(name)} end)
    System.put_env(variables)
    ExUnit.Callbacks.on_exit({:environment, make_ref()}, fn -> System.put_env(before) end)
  end
end
