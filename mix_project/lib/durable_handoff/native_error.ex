defmodule DurableHandoff.NativeError do
  @moduledoc """
  Raised when a Rust library of durable_handoff is not loaded: the engine with the codec (`handoff_nif`), or the
  stores (`store_nif`). The message names the file, the VM's reason and what to do.
  """

  defexception [:path, :reason]

  @type t :: %__MODULE__{path: String.t(), reason: term()}

  @impl true
  def message(%{path: path, reason: reason}) do
    """
    the Rust library #{Path.basename(path)} of durable_handoff is not loaded.
      looked for: #{path} (.so, on Windows .dll)
      because:    #{explain(reason)}
      what to do: #{remedy(reason)}\
    """
  end

  defp explain(:left_out), do: "the configuration leaves it out: config :durable_handoff, store: false"
  defp explain({:load, _text}), do: "it is of another version of durable_handoff"
  defp explain(:incomplete), do: "it lacks a function: it was built from other sources than this code"
  defp explain({kind, text}) when is_list(text), do: "#{kind}: #{text}"
  defp explain(reason), do: inspect(reason)

  defp remedy(:left_out),
    do: "use another backend than DurableHandoff.Store, or remove that line and run #{compile()}."

  # The VM loads a library of a module once: code reloading and hot upgrades cannot replace it.
  defp remedy({kind, _text}) when kind in [:reload, :upgrade],
    do: "restart the VM; a library cannot be replaced in a running one."

  defp remedy(_reason) do
    # A release has neither Mix nor the sources.
    if System.get_env("RELEASE_ROOT"), do: rebuild(), else: recompile()
  end

  defp rebuild do
    "build the release on the system that it runs on, or on one with the same architecture and C library. A " <>
      "library that was built with a newer glibc than this system's does not load here."
  end

  defp recompile do
    "remove that file if it is there and run #{compile()} (it needs cargo, from https://rustup.rs), or set " <>
      "DURABLE_HANDOFF_NIF to a directory with libraries of this version for this machine and compile again."
  end

  defp compile, do: "`mix deps.compile durable_handoff --force`"
end
