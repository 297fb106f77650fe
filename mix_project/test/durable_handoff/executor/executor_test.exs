defmodule DurableHandoff.ExecutorTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Executor

  @nodes for name <- [:a@h, :b@h, :c@h, :d@h], do: {name, nil, "1"}

  test "storages are spread over Rust nodes; when one leaves, only its storages get another" do
    storages = for n <- 1..400, do: "storage #{n}"
    first = fn nodes -> Map.new(storages, fn storage -> {storage, nodes |> Executor.rank(storage) |> hd()} end) end
    before = first.(@nodes)
    assert before |> Map.values() |> Enum.frequencies() |> Map.values() |> Enum.min() > 60
    gone = hd(@nodes)
    later = first.(@nodes -- [gone])
    for {storage, chosen} <- before, chosen != gone, do: assert(later[storage] == chosen)
  end
end
