defmodule DurableHandoff.Drain.Look do
  @moduledoc false
  # What a drain knows of its store before it stops the first server: how many moves at a time to start with, and
  # how long it will take. From the first of these that there is:
  #
  #   1. what an earlier drain has learnt (`DurableHandoff.Drain.Learnt`);
  #   2. how fast servers have just stored their states (`DurableHandoff.Drain.Storing.written/1`);
  #   3. for 64 servers or more, reads of an object that does not exist: no server is down meanwhile, where a
  #      search by moves lengthens the gap of each of them.
  #
  # Guarantee: the drain waits a second at most, and no more than a twentieth of its time. What comes later is only
  # for the line in the log; the drain gets `{DurableHandoff.Drain.Look, measured}`.

  alias DurableHandoff.Drain.{Estimate, Learnt, Storing}
  alias DurableHandoff.Host

  # A smaller drain is over before its store is known.
  @worth_it 64
  @longest_wait_ms 1_000
  @share_of_the_drain 20

  @type found :: {Learnt.t() | nil, Estimate.measured() | nil}
  @type t :: found() | :reading

  @doc "Begins to look at the store with the identity `storage`."
  @spec start(Host.name(), String.t(), Storing.t()) :: t()
  def start(supervisor, storage, storing) do
    case {Learnt.get(storage), Storing.written(storing)} do
      {%{} = learnt, _written} -> {learnt, Estimate.of_learnt(learnt)}
      {nil, %{} = written} -> found(Estimate.of_writes(written, Host.graceful_concurrency(supervisor)))
      {nil, nil} -> if (servers = Host.count(supervisor)) >= @worth_it, do: read(supervisor, servers), else: {nil, nil}
    end
  end

  @doc "What was found, as far as it is known in time."
  @spec result(t(), left_ms :: integer()) :: found()
  def result({_learnt, _measured} = found, _left_ms), do: found

  def result(:reading, left_ms) do
    receive do
      {__MODULE__, measured} -> found(measured)
    after
      left_ms |> div(@share_of_the_drain) |> min(@longest_wait_ms) |> max(0) -> {nil, nil}
    end
  end

  defp read(supervisor, servers) do
    drain = self()
    :proc_lib.spawn(fn -> send(drain, {__MODULE__, Estimate.probe(supervisor, servers)}) end)
    :reading
  end

  defp found(nil), do: {nil, nil}
  defp found(measured), do: {Estimate.start(measured), measured}
end
