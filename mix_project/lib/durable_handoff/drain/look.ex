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
  # For 64 servers or more also how fast the processors are (`DurableHandoff.Drain.Processors`).
  #
  # Guarantee: the drain waits a second at most, and no more than a twentieth of its time. What comes later is only
  # for the line in the log; the drain gets `{DurableHandoff.Drain.Look, measured}`.

  alias DurableHandoff.Drain.{Estimate, Learnt, Processors, Storing}
  alias DurableHandoff.Host

  # A smaller drain is over before its store is known.
  @worth_it 64
  @longest_wait_ms 1_000
  @share_of_the_drain 20
  # On a busy machine the look at the processors is not to delay a short drain.
  @processors_ms 30

  @type found :: {Learnt.t() | nil, Estimate.measured() | nil}
  @type t :: {Learnt.t() | nil, :looking} | found()

  @doc "Begins to look at the store with the identity `storage`."
  @spec start(Host.name(), String.t(), Storing.t()) :: t()
  def start(supervisor, storage, storing) do
    servers = Host.count(supervisor)

    case {Learnt.get(storage), Storing.written(storing)} do
      {nil, nil} when servers < @worth_it ->
        {nil, nil}

      {learnt, written} when servers < @worth_it ->
        found(learnt, of(supervisor, learnt, written))

      {learnt, written} ->
        look(supervisor, servers, learnt, written)
        {learnt, :looking}
    end
  end

  @doc "What was found, as far as it is known in time."
  @spec result(t(), left_ms :: integer()) :: found()
  def result({learnt, :looking}, left_ms) do
    receive do
      {__MODULE__, measured} -> found(learnt, measured)
    after
      left_ms |> div(@share_of_the_drain) |> min(@longest_wait_ms) |> max(0) -> {learnt, nil}
    end
  end

  def result(found, _left_ms), do: found

  defp look(supervisor, servers, learnt, written) do
    drain = self()

    :proc_lib.spawn(fn ->
      measured = of(supervisor, learnt, written) || Estimate.probe(supervisor, servers)
      measured = measured && Map.put(measured, :remote_us, Processors.measure(targets(supervisor), @processors_ms))
      send(drain, {__MODULE__, measured})
    end)
  end

  defp of(_supervisor, nil, nil), do: nil
  defp of(_supervisor, learnt, nil), do: Estimate.of_learnt(learnt)

  defp of(supervisor, learnt, written),
    do: written |> Estimate.of_writes(Host.graceful_concurrency(supervisor)) |> Estimate.with_learnt(learnt)

  # Nodes that run this supervisor.
  defp targets(supervisor) do
    names = for %{name: name} <- Host.View.build(supervisor, [], []).nodes, into: MapSet.new(), do: name
    for node <- Node.list(), Atom.to_string(node) in names, do: node
  end

  defp found(nil, nil), do: {nil, nil}
  defp found(nil, measured), do: {Estimate.start(measured), measured}
  defp found(learnt, measured), do: {learnt, measured}
end
