defmodule DurableHandoff.Store.Listing do
  @moduledoc false
  # A listing as a stream: the next page is requested when the page before it has been consumed.
  #
  # Lists without bodies, also with `include_objects:`, as DurableServer's own object storage does.
  # DurableServer then reads what it needs. A sweep needs only servers that do not run; with bodies, every
  # node would read every server at every sweep.
  #
  # Guarantee: a failed listing never looks complete. The error goes to the caller's handler; without one it raises.

  alias DurableHandoff.Store.{ListingError, Request}

  # How many times a handler may answer :continue for the same page.
  @again 3

  @spec stream(Request.store(), String.t(), keyword()) :: Enumerable.t()
  def stream(store, prefix, opts) do
    {request_opts, opts} = Keyword.split(opts, [:timeout, :max_retries])
    context = %{store: store, prefix: prefix, request_opts: request_opts, opts: opts}
    Stream.resource(fn -> {nil, @again} end, &next(context, &1), fn _state -> :ok end)
  end

  defp next(_context, :done), do: {:halt, :done}

  defp next(%{store: store} = context, {after_key, again}) do
    case Request.run(store, {:list, context.prefix, after_key, store.page_size}, context.request_opts) do
      {:ok, objects, next_key} ->
        objects = for {key, etag} <- objects, do: %{key: key, etag: etag}
        {objects, if(next_key, do: {next_key, @again}, else: :done)}

      {:error, reason} ->
        if handle(context, reason) == :continue and again > 0, do: {[], {after_key, again - 1}}, else: {[], :done}
    end
  end

  defp handle(%{opts: opts, store: store, prefix: prefix}, reason) do
    case opts[:error_handler] do
      nil -> raise ListingError, url: store.url, prefix: prefix, reason: reason
      handler -> handler.(reason)
    end
  end
end
