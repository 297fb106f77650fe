defmodule SpyStore do
  @moduledoc """
  A `SimulatedStore` that sends a process each callback with its arguments, as
  `{SpyStore, callback, key, options}`.

  Backend options: those of `SimulatedStore`, and `tell:`, the process.
  """

  def init_backend(opts) do
    {tell, opts} = Keyword.pop!(opts, :tell)
    {:ok, %{state: place} = backend} = SimulatedStore.init_backend(opts)
    {:ok, %{backend | state: {tell, place}}}
  end

  def ensure_ready({tell, place}) do
    tell(tell, :ensure_ready, nil, [])
    SimulatedStore.ensure_ready(place)
  end

  def get_object({tell, place}, key, opts) do
    tell(tell, :get_object, key, opts)
    SimulatedStore.get_object(place, key, opts)
  end

  def put_object({tell, place}, key, data, opts) do
    tell(tell, :put_object, key, opts)
    SimulatedStore.put_object(place, key, data, opts)
  end

  def try_claim({tell, place}, key, data) do
    tell(tell, :try_claim, key, [])
    SimulatedStore.try_claim(place, key, data)
  end

  def update_object({tell, place}, key, fun, opts) do
    tell(tell, :update_object, key, opts)
    SimulatedStore.update_object(place, key, fun, Keyword.delete(opts, :timeout))
  end

  def delete_object({tell, place}, key), do: delete_object({tell, place}, key, [])

  def delete_object({tell, place}, key, opts) do
    tell(tell, :delete_object, key, opts)
    SimulatedStore.delete_object(place, key, opts)
  end

  def list_all_objects_stream({tell, place}, prefix, opts) do
    tell(tell, :list_all_objects_stream, prefix, opts)
    SimulatedStore.list_all_objects_stream(place, prefix, opts)
  end

  def encode({tell, place}, data) do
    tell(tell, :encode, nil, kind: kind(data))
    SimulatedStore.encode(place, data)
  end

  def decode({tell, place}, data) do
    tell(tell, :decode, nil, [])
    SimulatedStore.decode(place, data)
  end

  defp kind(%{__struct__: module}), do: module
  defp kind(%{}), do: :map

  defp tell(tell, callback, key, opts), do: send(tell, {__MODULE__, callback, key, opts})
end
