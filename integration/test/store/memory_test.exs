defmodule Store.PinnedTest do
  @moduledoc "How much memory a state that was read keeps alive."

  use ExUnit.Case, async: true

  alias DurableHandoff.Store

  @large 1_000_000
  @small String.duplicate("s", 100)

  defp read(opts) do
    {:ok, %{state: store}} = Store.init_backend([url: "memory:"] ++ opts)
    {:ok, _} = Store.put_object(store, "k", %{"large" => String.duplicate("l", @large), "small" => @small})
    {:ok, %{body: %{"small" => small}}} = Store.get_object(store, "k")
    assert small == @small
    :binary.referenced_byte_size(small)
  end

  test "a small string of a large state does not keep the whole object in memory" do
    assert read([]) == byte_size(@small)
  end

  test "with strings: :reference it does" do
    assert read(strings: :reference) > @large
  end
end
