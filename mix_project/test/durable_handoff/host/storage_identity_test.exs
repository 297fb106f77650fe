defmodule DurableHandoff.Host.StorageIdentityTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Host.StorageIdentity

  # Long enough for another VM on a busy machine.
  @busy_ms 120_000

  defmodule Speaking do
    def storage_identity(state), do: state.where
  end

  defmodule Raising do
    def storage_identity(_state), do: raise("no")
  end

  defmodule Exiting do
    def storage_identity(state), do: GenServer.call(state.name, :where)
  end

  defp s3(changes), do: {{Backend, Map.merge(%{url: "s3://bucket/path", secret_access_key: "x"}, changes)}, "app/"}

  test "the identity depends only on the place, so that all nodes have the same" do
    identity = StorageIdentity.of(s3(%{}))
    assert identity =~ ~r/^[0-9a-f]{32}$/
    assert StorageIdentity.of(s3(%{pid: self(), ref: make_ref(), token: "of this node"})) == identity
    assert StorageIdentity.of(s3(%{secret_access_key: "changed in the middle of a deploy"})) == identity
  end

  test "another prefix, bucket or backend has another identity" do
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

  test "user and query of a URL, which can hold secrets, are left out" do
    identity = StorageIdentity.of(s3(%{endpoint: "https://store.example/x"}))
    assert StorageIdentity.of(s3(%{endpoint: "https://me:secret@store.example/x?sig=secret"})) == identity
    refute StorageIdentity.of(s3(%{endpoint: "https://store.example/y"})) == identity
  end

  test "a backend may define its own identity" do
    assert StorageIdentity.of({{Speaking, %{where: 1, x: 1}}, "p"}) ==
             StorageIdentity.of({{Speaking, %{where: 1, x: 2}}, "p"})

    refute StorageIdentity.of({{Speaking, %{where: 1}}, "p"}) == StorageIdentity.of({{Speaking, %{where: 2}}, "p"})
  end

  test "a map as identity is the same in a VM that has made its atoms in another order" do
    names = for n <- 1..40, do: "storage_identity_#{n}"
    place = Map.new(names, &{String.to_atom(&1), 1})
    store = backend(DurableHandoff.Store, %{__struct__: DurableHandoff.Store, place: place})
    code = Enum.flat_map(:code.get_path(), &[~c"-pa", &1])
    {:ok, vm, _node} = :peer.start_link(%{connection: :standard_io, args: code, wait_boot: @busy_ms})
    for name <- Enum.reverse(names), do: :peer.call(vm, String, :to_atom, [name], @busy_ms)
    assert :peer.call(vm, StorageIdentity, :of, [{store, "app/"}], @busy_ms) == of(store)
    :peer.stop(vm)
  end

  # The shapes of the real package: `__get_config__(sup).storage_backend`.
  defp backend(adapter, state),
    do: %{__struct__: DurableServer.StorageBackend, adapter: adapter, state: state, defaults: %{}, features: %{}}

  defp object_store(changes) do
    credentials = %{access_key_id: "id", secret_access_key: "secret", headers: []}
    place = %{region: "auto", default_region: "fra", s3_endpoint: "https://s3.example", bucket: "b"}
    state = credentials |> Map.merge(place) |> Map.put(:__struct__, DurableServer.ObjectStore) |> Map.merge(changes)
    backend(DurableServer.Backends.ObjectStore, state)
  end

  defp ekv(name), do: backend(DurableServer.Backends.EKVStore, %{name: name, timeout: 10_000, backoff: {10, 60}})

  defp mirror(primary, secondary, changes \\ %{}) do
    state = %{primary: primary, secondary: secondary, read_preference: :primary, mirror_mode: :best_effort}
    backend(DurableServer.Backends.MirrorStore, Map.merge(state, changes))
  end

  defp of(backend), do: StorageIdentity.of({backend, "app/"})

  test "the real package's backends: stores with the same prefix differ" do
    stores = [
      object_store(%{}),
      object_store(%{bucket: "other"}),
      object_store(%{s3_endpoint: "https://s3.elsewhere"}),
      ekv(:one),
      ekv(:two),
      mirror(object_store(%{}), ekv(:one)),
      mirror(object_store(%{}), ekv(:two)),
      backend(DurableHandoff.Store, %{__struct__: DurableHandoff.Store, place: {:a, 1}}),
      backend(DurableHandoff.Store, %{__struct__: DurableHandoff.Store, place: {:a, 2}})
    ]

    assert stores |> Enum.map(&of/1) |> Enum.uniq() |> length() == length(stores)
  end

  test "a bucket has one identity in all regions and with any credentials" do
    here = of(object_store(%{region: "fra", default_region: "fra"}))
    assert of(object_store(%{region: "syd", default_region: "syd", secret_access_key: "rotated"})) == here
    assert of(object_store(%{s3_endpoint: "https://user:secret@s3.example"})) == here
  end

  test "a wrapper has the identity of the store in it" do
    store = object_store(%{})
    encrypted = backend(EncryptedStore, %{inner: store, keys: %{current: "secret"}})
    cached = backend(CachedStore, %{__struct__: CachedStore, options: %{backend: encrypted}, dir: "/tmp/of/this/node"})
    assert of(encrypted) == of(store)
    assert of(cached) == of(store)
    refute of(backend(EncryptedStore, %{inner: object_store(%{bucket: "other"})})) == of(store)
  end

  test "a mirror keeps its identity during a migration" do
    before = of(mirror(object_store(%{}), ekv(:one)))
    assert of(mirror(object_store(%{}), ekv(:one), %{read_preference: :secondary, write_target: :secondary})) == before
    assert of(mirror(ekv(:one), object_store(%{}))) == before
  end

  test "DurableHandoff.Store: equal bucket names at other services or accounts are different storages" do
    place = &DurableHandoff.Store.Place.of/2
    s3 = &place.("s3://bucket/path", &1)
    assert s3.([]) == s3.([{"secret_access_key", "x"}])
    refute s3.([{"endpoint", "https://a"}]) == s3.([{"endpoint", "https://b"}])
    assert s3.([{"endpoint", "https://a"}]) == s3.([{"aws_endpoint_url", "https://me:secret@a"}, {"region", "eu"}])
    # The Rust crate prefers the endpoint of S3 alone.
    assert s3.([{"endpoint", "https://a"}, {"aws_endpoint_url_s3", "https://b"}]) == s3.([{"endpoint", "https://b"}])
    refute s3.([{"region", "eu"}]) == s3.([{"region", "cn"}])
    refute place.("az://c/p", [{"account_name", "a"}]) == place.("az://c/p", [{"azure_storage_account_name", "b"}])
    refute place.("file:///a", []) == place.("file:///b", [])
    # One VM's memory is not another's.
    assert {"memory:x", node} = place.("memory:x", [])
    assert node == node()
  end

  test "a backend that raises or exits, and unknown terms, still have an identity" do
    for storage <- [
          nil,
          {{Raising, %{url: "x"}}, "p"},
          {{Exiting, %{name: :gone}}, "p"},
          {Module, "p"},
          {"odd", "p"},
          {{M, {:name, :node@h}}, "p"},
          {{M, [1]}, "p"}
        ],
        do: assert(StorageIdentity.of(storage) =~ ~r/^[0-9a-f]{32}$/)
  end
end
