defmodule DurableServer.Callbacks do
  @moduledoc """
  Calls into a user's callback module, and what its return tuples mean. Pure, except for the calls.
  """

  @stops [:normal, :permanent, :delete, {:shutdown, :normal}, {:shutdown, :permanent}, {:shutdown, :delete}]

  @typedoc """
  What a callback requested: to continue with this tuple, storing the state first or not, or to stop.
  """
  @type wish ::
          {:go_on, sync? :: boolean(), opts :: keyword(), tuple(), state_at :: non_neg_integer()}
          | {:stop, reason :: term(), status :: atom(), tuple(), state_at :: non_neg_integer()}

  @doc "Calls `init/2` where the module has it, else `init/1`."
  @spec init(module(), map(), map()) :: {:ok, map(), keyword(), tuple() | nil} | :ignore | {:error, term()}
  def init(module, state, info) do
    result = if function_exported?(module, :init, 2), do: module.init(state, info), else: module.init(state)

    case result do
      {:ok, state} -> {:ok, state, [], nil}
      {:ok, state, opts} when is_list(opts) -> {:ok, state, opts, nil}
      {:ok, state, {:continue, _} = continue} -> {:ok, state, [], continue}
      {:ok, state, {:continue, _} = continue, opts} -> {:ok, state, opts, continue}
      :ignore -> :ignore
      other -> {:error, {:bad_init_return, other}}
    end
  end

  @doc "Reads a return tuple. Raises `ArgumentError` for an invalid stop reason."
  @spec wish(tuple()) :: wish()
  def wish({:stop, reason, _state} = result), do: {:stop, reason!(reason), status(reason), exit_as(result), 2}
  def wish({:stop, reason, _reply, _state} = result), do: {:stop, reason!(reason), status(reason), exit_as(result), 3}
  def wish({:reply, _reply, _state} = result), do: {:go_on, false, [], result, 2}
  def wish({:noreply, _state} = result), do: {:go_on, false, [], result, 1}
  def wish({:reply, reply, state, ending}), do: ending(ending, {:reply, reply, state}, 2)
  def wish({:noreply, state, ending}), do: ending(ending, {:noreply, state}, 1)

  defp ending(:sync, result, at), do: {:go_on, true, [], result, at}
  defp ending(opts, result, at) when is_list(opts), do: {:go_on, Keyword.get(opts, :sync, false), opts, result, at}
  defp ending(action, result, at), do: {:go_on, false, [], Tuple.insert_at(result, tuple_size(result), action), at}

  # The process ends with the plain reason, as after any stop by a callback.
  defp exit_as(result) when elem(result, 1) in [:permanent, :delete], do: put_elem(result, 1, :normal)
  defp exit_as(result), do: result

  defp reason!(reason) when reason in @stops, do: reason
  defp reason!({:error, _} = reason), do: reason
  defp reason!(other), do: raise(ArgumentError, "invalid stop reason: #{inspect(other)}")

  defp status({:shutdown, reason}), do: status(reason)
  defp status(:normal), do: :stopped_graceful
  defp status(:permanent), do: :stopped_permanent
  defp status(:delete), do: :deleting
  defp status({:error, _}), do: :crashed
  # Refused by `reason!/1`.
  defp status(_other), do: nil

  @spec optional(module(), atom(), [term()], (() -> term())) :: term()
  def optional(module, name, args, otherwise) do
    if function_exported?(module, name, length(args)), do: apply(module, name, args), else: otherwise.()
  end
end
