defmodule DurableServer.Callbacks do
  @moduledoc """
  Calls into a user's callback module, and what its return tuples mean. Pure but for the calls.
  """

  @doc "Calls `init/2` where the module has it, else `init/1`."
  @spec init(module(), map(), map()) :: {:ok, map(), keyword()} | :ignore | {:stop, term()}
  def init(module, state, info) do
    result = if function_exported?(module, :init, 2), do: module.init(state, info), else: module.init(state)

    case result do
      {:ok, state} -> {:ok, state, []}
      {:ok, state, opts} when is_list(opts) -> {:ok, state, opts}
      :ignore -> :ignore
      {:stop, reason} -> {:stop, reason}
    end
  end

  @doc "Whether the tuple ends in `:sync`, and the tuple without it."
  @spec split_sync(tuple()) :: {boolean(), tuple()}
  def split_sync(result) when tuple_size(result) > 2 do
    last = tuple_size(result) - 1
    if elem(result, last) == :sync, do: {true, Tuple.delete_at(result, last)}, else: {false, result}
  end

  def split_sync(result), do: {false, result}

  @doc "The new state in a GenServer return tuple, and where it stands there."
  @spec state(tuple()) :: {map(), non_neg_integer()}
  def state({:reply, _reply, state}), do: {state, 2}
  def state({:reply, _reply, state, _extra}), do: {state, 2}
  def state({:noreply, state}), do: {state, 1}
  def state({:noreply, state, _extra}), do: {state, 1}
  def state({:stop, _reason, state}), do: {state, 2}
  def state({:stop, _reason, _reply, state}), do: {state, 3}

  @spec optional(module(), atom(), [term()], (() -> term())) :: term()
  def optional(module, name, args, otherwise) do
    if function_exported?(module, name, length(args)), do: apply(module, name, args), else: otherwise.()
  end
end
