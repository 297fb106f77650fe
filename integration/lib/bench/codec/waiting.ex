defmodule HandoffBench.Codec.Waiting do
  @moduledoc """
  How long a process waits for the scheduler while another one encodes and decodes large states, in a separate
  VM with one scheduler of each kind.

  The waiting process only yields and reads the clock when it runs again.
  """

  alias DurableHandoff.Codec
  alias HandoffBench.Codec.States

  @doc "Measures each kind of work for `seconds` seconds."
  @spec measure(pos_integer()) :: [%{name: String.t(), longest_ms: float(), calls: pos_integer()}]
  def measure(seconds) do
    args =
      Enum.flat_map(["+S 1:1", "+SDcpu 1:1"], &String.split/1) ++
        Enum.flat_map(:code.get_path(), &["-pa", List.to_string(&1)])

    {:ok, peer, _node} = :peer.start_link(%{connection: :standard_io, args: Enum.map(args, &String.to_charlist/1)})

    try do
      for work <- [:nothing, :encode_long, :decode_long, :encode_short, :decode_short] do
        :peer.call(peer, __MODULE__, :beside, [work, seconds], :infinity)
      end
    after
      :peer.stop(peer)
    end
  end

  @doc "Runs in the other VM."
  @spec beside(atom(), pos_integer()) :: map()
  def beside(work, seconds) do
    {:ok, _apps} = Application.ensure_all_started(:elixir)
    {name, call} = work(work)
    call.()
    stop_at = now_us() + seconds * 1_000_000
    worker = Task.async(fn -> work_until(call, stop_at, 0) end)
    longest = wait_until(stop_at, now_us(), 0)
    %{name: name, longest_ms: longest / 1_000, calls: Task.await(worker, :infinity)}
  end

  defp work(:nothing), do: {"no work", fn -> :erlang.yield() end}

  defp work(work) when work in [:encode_long, :decode_long] do
    {"5 MB strings", state} = List.keyfind(States.all(:strings), "5 MB strings", 0)
    json = Codec.encode!(state)

    if work == :encode_long,
      do: {"encode, 5 MB", fn -> Codec.encode!(state) end},
      else: {"decode, 5 MB", fn -> Codec.decode!(json) end}
  end

  # The largest text that is handled on the normal scheduler.
  defp work(work) do
    state = Enum.take(Stream.cycle([%{"id" => 12, "text" => "as short as they come", "ok" => nil}]), 2_450)
    json = Codec.encode!(state)

    if work == :encode_short,
      do: {"encode, #{div(byte_size(json), 1024)} KB", fn -> Codec.encode!(state) end},
      else: {"decode, #{div(byte_size(json), 1024)} KB", fn -> Codec.decode!(json) end}
  end

  defp work_until(call, stop_at, calls) do
    call.()
    if now_us() < stop_at, do: work_until(call, stop_at, calls + 1), else: calls + 1
  end

  defp wait_until(stop_at, last, longest) do
    :erlang.yield()
    now = now_us()
    longest = max(longest, now - last)
    if now < stop_at, do: wait_until(stop_at, now, longest), else: longest
  end

  defp now_us, do: System.monotonic_time(:microsecond)
end
