defmodule DurableHandoff.Host.StorageIdentityTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Host.StorageIdentity

  defmodule Speaking do
    def storage_identity(state), do: state.where
  end

  defmodule Raising do
    def storage_identity(_state), do: raise("no")
  end

  defp s3(changes), do: {{Backend, Map.merge(%{url: "s3://bucket/path", secret_access_key: "x"}, changes)}, "app/"}

  test "the same place is the same on every node, whatever else the backend holds" do
    identity = StorageIdentity.of(s3(%{}))
    assert identity =~ ~r/^[0-9a-f]{32}$/
    assert StorageIdentity.of(s3(%{pid: self(), ref: make_ref(), token: "of this node"})) == identity
    assert StorageIdentity.of(s3(%{secret_access_key: "changed in the middle of a deploy"})) == identity
  end

  test "another prefix, bucket or backend is another place" do
    {backend, _prefix} = s3(%{})

    others = [
      {backend, "other/"},
      s3(%{url: "s3://bucket/other"}),
      s3(%{bucket: "b"}),
      {{Other, elem(backend, 1)}, "app/"}
    ]

    assert others |> Enum.map(&StorageIdentity.of/1) |> Enum.uniq() |> length() == 4
    refute StorageIdentity.of(s3(%{})) in Enum.map(others, &StorageIdentity.of/1)
  end

  test "user and query of a URL do not count: that is where secrets are" do
    identity = StorageIdentity.of(s3(%{endpoint: "https://store.example/x"}))
    assert StorageIdentity.of(s3(%{endpoint: "https://me:secret@store.example/x?sig=secret"})) == identity
    refute StorageIdentity.of(s3(%{endpoint: "https://store.example/y"})) == identity
  end

  test "a backend may say itself where it is" do
    assert StorageIdentity.of({{Speaking, %{where: 1, x: 1}}, "p"}) ==
             StorageIdentity.of({{Speaking, %{where: 1, x: 2}}, "p"})

    refute StorageIdentity.of({{Speaking, %{where: 1}}, "p"}) == StorageIdentity.of({{Speaking, %{where: 2}}, "p"})
  end

  test "a backend that raises, and shapes nobody knows, still have one" do
    for storage <- [
          nil,
          {{Raising, %{url: "x"}}, "p"},
          {Module, "p"},
          {"odd", "p"},
          {{M, {:name, :node@h}}, "p"},
          {{M, [1]}, "p"}
        ],
        do: assert(StorageIdentity.of(storage) =~ ~r/^[0-9a-f]{32}$/)
  end
end
