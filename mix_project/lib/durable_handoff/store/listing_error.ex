defmodule DurableHandoff.Store.ListingError do
  @moduledoc "Raised by a listing that failed and has no `error_handler:`. The objects before it are not all objects."

  defexception [:url, :prefix, :reason]

  @type t :: %__MODULE__{url: String.t(), prefix: String.t(), reason: term()}

  @impl true
  def message(%{url: url, prefix: prefix, reason: reason}),
    do: "listing #{inspect(prefix)} in #{url} failed: #{inspect(reason)}"
end
