defmodule Store.Places do
  @moduledoc "Options of stores that need no server: a directory, memory, and the simulated store."

  @spec directory() :: keyword()
  def directory do
    dir = Path.join(System.tmp_dir!(), Cluster.unique("handoff store"))
    ExUnit.Callbacks.on_exit(fn -> File.rm_rf!(dir) end)
    [url: "file://" <> URI.encode(dir)]
  end

  @spec memory() :: keyword()
  def memory, do: [url: "memory:"]

  @spec simulated() :: keyword()
  def simulated do
    name = String.to_atom(Cluster.unique("store"))
    ExUnit.Callbacks.start_supervised!({SimulatedStore, name: name})
    [name: name]
  end
end
