defmodule DurableHandoff.Host.StorageIdentity do
  @moduledoc false
  # A text that identifies a storage: the same on all nodes that keep their servers in the same place.
  #
  # Guarantees: it is a hash of the prefix and of the place that the backend points to. It contains no secret
  # and no name of a bucket. Never raises.
  #
  #   * A backend that wraps others (a mirror, encryption, a cache) has their identity: wrapping a store, or
  #     changing which side of a mirror is read, does not change it.
  #   * A backend may say where it is: `storage_identity/1`, called with its state, returns any term.
  #   * Else it is its module and the values of well-known keys of its state: `url`, `bucket`, `container`,
  #     `account_name`, `endpoint`, `s3_endpoint`, `base_url`, `host`, `port`, `path`, `root`, `dir`,
  #     `database`, `table`, `namespace`, `name`; of a URL neither user nor query. `region` counts where there
  #     is no endpoint: beside one, nodes of several regions may name the same store differently.
  #   * Everything else in a state, such as credentials, connections and pids, does not count. A backend with
  #     none of these keys is identified by its module and the prefix. Two such storages with the same prefix
  #     then share their limits, which costs at most some speed.

  @keys ~w(url bucket container account_name endpoint s3_endpoint base_url host port path root dir database table
           namespace name)a
  @urls [:url, :endpoint, :s3_endpoint, :base_url]
  @endpoints [:endpoint, :s3_endpoint, :base_url]
  # The deepest nesting of wrapping backends that is followed.
  @depth 6

  @doc "The identity of a supervisor's storage, as 32 hexadecimal digits."
  @spec of(DurableHandoff.Host.storage() | nil) :: String.t()
  def of(nil), do: digest(:none)
  def of({backend, prefix}), do: digest({prefix, backend(backend, @depth)})

  @doc "A URL as part of an identity: without user, query and fragment. nil when it is not a URL."
  @spec url(term()) :: term()
  def url(value) when is_binary(value) do
    case URI.new(value) do
      {:ok, uri} -> {uri.scheme, uri.host, uri.port, uri.path}
      {:error, _part} -> nil
    end
  end

  def url(_value), do: nil

  defp backend(%{__struct__: DurableServer.StorageBackend, adapter: module, state: state}, depth),
    do: leaf_or_nested(module, state, depth)

  defp backend({module, state}, depth) when is_atom(module), do: leaf_or_nested(module, state, depth)
  defp backend(module, _depth) when is_atom(module), do: module
  defp backend(_unknown, _depth), do: :unknown

  defp leaf_or_nested(module, state, depth) do
    case nested(state, depth) do
      [] -> {module, place(module, state)}
      [one] -> one
      several -> several
    end
  end

  defp nested(_state, 0), do: []
  defp nested(%{__struct__: DurableServer.StorageBackend} = backend, depth), do: [backend(backend, depth - 1)]

  defp nested(%{} = state, depth) do
    state
    |> Map.delete(:__struct__)
    |> Map.values()
    |> Enum.filter(&is_map/1)
    |> Enum.flat_map(&nested(&1, depth - 1))
    |> Enum.uniq()
    |> Enum.sort()
  end

  defp nested(state, depth) when is_list(state),
    do: if(Keyword.keyword?(state), do: state |> Map.new() |> nested(depth), else: [])

  defp nested(_state, _depth), do: []

  defp place(module, state) do
    if Code.ensure_loaded?(module) and function_exported?(module, :storage_identity, 1),
      do: module.storage_identity(state),
      else: known(state)
  catch
    _kind, _reason -> known(state)
  end

  defp known(%{} = state) do
    keys = if Enum.any?(@endpoints, &Map.get(state, &1)), do: @keys, else: [:region | @keys]
    for key <- keys, value = plain(key, Map.get(state, key)), do: {key, value}
  end

  defp known(state) when is_list(state), do: if(Keyword.keyword?(state), do: state |> Map.new() |> known(), else: [])
  defp known(_state), do: []

  defp plain(key, value) when key in @urls and is_binary(value), do: url(value)
  defp plain(_key, value) when is_binary(value) or is_atom(value) or is_integer(value), do: value
  defp plain(_key, _value), do: nil

  # The hash needs no cryptographic strength: nothing in it is secret. This one is part of every VM. The order of a map's
  # keys differs between VMs.
  defp digest(term),
    do:
      term |> :erlang.term_to_binary([:deterministic, minor_version: 2]) |> :erlang.md5() |> Base.encode16(case: :lower)
end
