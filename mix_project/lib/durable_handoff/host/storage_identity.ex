defmodule DurableHandoff.Host.StorageIdentity do
  @moduledoc """
  A text that is the same on every node that keeps its servers in the same place, and different elsewhere.

  Guarantees: made of the backend's module, the prefix and where the backend points to, and of nothing that could be a secret; hashed, so that
  it names no bucket to anybody. Never raises.

  Where a backend points to is what its `storage_identity/1` says (any term, called with the backend's state), or else the values of
  well-known keys of that state: `url`, `bucket`, `container`, `endpoint`, `host`, `region`, `path`, `root`, `dir`, `database`, `table`,
  `namespace`; of a URL neither user nor query. What a state holds beyond that, such as credentials, connections and pids, does not count.
  A backend with none of these is taken for one place: drains with the same prefix then share their limits, which costs at most some speed.
  """

  @keys [
    :url,
    :bucket,
    :container,
    :endpoint,
    :host,
    :region,
    :path,
    :root,
    :dir,
    :database,
    :table,
    :namespace
  ]

  @doc "The identity of a supervisor's storage, as 32 hexadecimal digits."
  @spec of(DurableHandoff.Host.storage() | nil) :: String.t()
  def of(nil), do: digest(:none)
  def of({backend, prefix}), do: digest({prefix, backend(backend)})

  defp backend({module, state}) when is_atom(module), do: {module, place(module, state)}
  defp backend(module) when is_atom(module), do: module
  defp backend(_unknown), do: :unknown

  defp place(module, state) do
    if function_exported?(module, :storage_identity, 1), do: module.storage_identity(state), else: known(state)
  rescue
    _error -> known(state)
  end

  defp known(%{} = state) do
    for key <- @keys, value = plain(key, Map.get(state, key)), do: {key, value}
  end

  defp known(state) when is_list(state), do: if(Keyword.keyword?(state), do: state |> Map.new() |> known(), else: [])
  defp known(_state), do: []

  defp plain(key, value) when key in [:url, :endpoint] and is_binary(value) do
    case URI.new(value) do
      {:ok, uri} -> {uri.scheme, uri.host, uri.port, uri.path}
      {:error, _part} -> nil
    end
  end

  defp plain(_key, value) when is_binary(value) or is_atom(value), do: value
  defp plain(_key, _value), do: nil

  # The hash need not resist anybody: there is nothing secret in it. This one is part of every VM.
  defp digest(term),
    do: term |> :erlang.term_to_binary(minor_version: 2) |> :erlang.md5() |> Base.encode16(case: :lower)
end
