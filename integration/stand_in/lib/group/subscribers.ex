defmodule Group.Subscribers do
  @moduledoc """
  The subscriptions by key. A process gets each event once, however many of its patterns match.
  """

  @type t :: %{pid() => {reference(), [Group.pattern()]}}

  @spec add(t(), pid(), Group.pattern()) :: t()
  def add(subscribers, pid, pattern) do
    {ref, patterns} = Map.get_lazy(subscribers, pid, fn -> {Process.monitor(pid), []} end)
    Map.put(subscribers, pid, {ref, [pattern | patterns]})
  end

  @spec remove(t(), pid(), Group.pattern()) :: t()
  def remove(subscribers, pid, pattern) do
    with %{^pid => {ref, patterns}} <- subscribers do
      case List.delete(patterns, pattern) do
        [] ->
          Process.demonitor(ref, [:flush])
          Map.delete(subscribers, pid)

        rest ->
          Map.put(subscribers, pid, {ref, rest})
      end
    end
  end

  @spec forget(t(), pid()) :: t()
  def forget(subscribers, pid), do: Map.delete(subscribers, pid)

  @spec publish(t(), atom(), [Group.Event.t()]) :: :ok
  def publish(_subscribers, _name, []), do: :ok

  def publish(subscribers, name, events) do
    for {pid, {_ref, patterns}} <- subscribers do
      wanted = Enum.filter(events, fn event -> Enum.any?(patterns, &matches?(&1, event.key)) end)
      if wanted != [], do: send(pid, {:group, wanted, %{supervisor: name}})
    end

    :ok
  end

  defp matches?(:all, _key), do: true
  defp matches?(key, key), do: true
  defp matches?(pattern, key), do: String.ends_with?(pattern, "/") and String.starts_with?(key, pattern)
end
