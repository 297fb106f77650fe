defmodule DurableHandoff.Store.Listing do
  @moduledoc false
  # A listing as a stream: a page is asked for when the one before it has been consumed.
  #
  # Guarantee: a listing that failed never looks like one that is complete. The error goes to the caller's handler, and raises
  # where there is none.

  alias DurableHandoff.Store
  alias DurableHandoff.Store.{Body, Request}

  # Reads at a time for one listing with bodies: enough to hide the round trips, few enough to leave turns for others.
  @reads_at_a_time 16
  # A handler that says :continue asks for the same page again, and not for ever.
  @again 3

  @spec stream(Store.t(), String.t(), keyword()) :: Enumerable.t()
  def stream(store, prefix, opts) do
    {request_opts, opts} = Keyword.split(opts, [:timeout, :max_retries])
    context = %{store: store, prefix: prefix, request_opts: request_opts, opts: opts}
    Stream.resource(fn -> {nil, @again} end, &next(context, &1), fn _state -> :ok end)
  end

  defp next(_context, :done), do: {:halt, :done}

  defp next(%{store: store} = context, {after_key, again}) do
    case Request.run(store, {:list, context.prefix, after_key, store.page_size}, context.request_opts) do
      {:ok, objects, next_key} ->
        {objects, verdict} = objects(context, objects)
        {objects, if(verdict == :halt or next_key == nil, do: :done, else: {next_key, @again})}

      {:error, reason} ->
        if handle(context, reason) == :continue and again > 0, do: {[], {after_key, again - 1}}, else: {[], :done}
    end
  end

  defp objects(%{opts: opts} = context, objects) do
    if opts[:include_objects],
      do: with_bodies(context, Enum.chunk_every(objects, @reads_at_a_time), []),
      else: {for({key, etag} <- objects, do: %{key: key, etag: etag}), :continue}
  end

  defp with_bodies(_context, [], read), do: {Enum.concat(Enum.reverse(read)), :continue}

  defp with_bodies(context, [chunk | chunks], read) do
    requests =
      for {key, _etag} <- chunk, do: {key, Request.start(context.store, {:get, key, true}, context.request_opts)}

    answers = for {key, request} <- requests, do: {key, Request.await(request)}
    {objects, verdict} = Enum.flat_map_reduce(answers, :continue, &read(context, &1, &2))

    if verdict == :halt,
      do: {Enum.concat(Enum.reverse([objects | read])), :halt},
      else: with_bodies(context, chunks, [objects | read])
  end

  defp read(_context, _answer, :halt), do: {:halt, :halt}
  # Deleted since it was listed.
  defp read(_context, {_key, {:error, :not_found}}, verdict), do: {[], verdict}

  defp read(context, {key, answer}, verdict) do
    with {:ok, bytes, etag} <- answer, {:ok, body} <- Body.decode(bytes, key) do
      {[%{key: key, etag: etag, body: body}], verdict}
    else
      {:error, reason} -> {[], handle(context, {key, reason})}
    end
  end

  defp handle(%{opts: opts, store: store, prefix: prefix}, reason) do
    case opts[:error_handler] do
      nil -> raise DurableHandoff.Store.ListingError, url: store.url, prefix: prefix, reason: reason
      handler -> handler.(reason)
    end
  end
end
