defmodule Store.Places do
  @moduledoc "Options of stores that need no server: a directory, memory, and the simulated store."

  @spec directory() :: keyword()
  def directory, do: [url: "file://" <> URI.encode(Temporary.path("a store"))]

  @spec memory() :: keyword()
  def memory, do: [url: "memory:"]

  @spec simulated() :: keyword()
  def simulated do
    name = String.to_atom(Cluster.unique("store"))
    ExUnit.Callbacks.start_supervised!({SimulatedStore, name: name})
    [name: name]
  end
end
