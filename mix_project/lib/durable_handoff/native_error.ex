defmodule DurableHandoff.NativeError do
  @moduledoc "Raised when the Rust engine is not loaded. The message names the file, the VM's reason and what to do."

  defexception [:path, :reason]

  @type t :: %__MODULE__{path: String.t(), reason: term()}

  @impl true
  def message(%{path: path, reason: reason}) do
    """
    the Rust engine of durable_handoff is not loaded.
      looked for: #{path} (.so, on Windows .dll)
      because:    #{explain(reason)}
      what to do: #{remedy(reason)}\
    """
  end

  defp explain({kind, text}) when is_list(text), do: "#{kind}: #{text}"
  defp explain(reason), do: inspect(reason)

  # The VM keeps one library for a module: code reloading and hot upgrades cannot replace it.
  defp remedy({kind, _text}) when kind in [:reload, :upgrade],
    do: "restart the VM; the engine cannot be replaced in a running one."

  defp remedy(_reason) do
    "remove that file if it is there and run `mix deps.compile durable_handoff --force` (it needs cargo, from " <>
      "https://rustup.rs), or set DURABLE_HANDOFF_NIF to a prebuilt library for this machine and compile again."
  end
end
