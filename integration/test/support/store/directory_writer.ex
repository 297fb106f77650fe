defmodule Store.DirectoryWriter do
  @moduledoc "Writers that run on peer nodes, each with its own handle on a store."

  alias DurableHandoff.Store, as: Backend

  @spec increment(keyword(), String.t(), pos_integer()) :: :ok
  def increment(opts, key, times) do
    {:ok, %{state: state}} = Backend.init_backend(opts)
    for _ <- 1..times, do: Store.Conformance.increment(Backend, state, key)
    :ok
  end

  @spec write_for_ever(keyword(), String.t()) :: no_return()
  def write_for_ever(opts, key) do
    {:ok, %{state: state}} = Backend.init_backend(opts)
    text = String.duplicate("x", 100_000)

    for n <- Stream.iterate(1, &(&1 + 1)) do
      {:ok, _} = Backend.put_object(state, key, %{"n" => n, "text" => text})
    end
  end
end
