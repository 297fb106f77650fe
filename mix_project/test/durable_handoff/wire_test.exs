defmodule DurableHandoff.WireTest do
  # Reads and writes the same golden bytes as native/handoff_wire (test/vectors/wire). The format itself
  # guarantees equal numbers, texts and pids; this checks that both sides have the same messages.
  use ExUnit.Case, async: true

  alias DurableHandoff.Wire

  @files "../../../test/vectors/wire/otp-*.json" |> Path.expand(__DIR__) |> Path.wildcard()
  for file <- @files, do: @external_resource(file)

  # One case per line; the test needs no other parts of JSON.
  @cases for file <- @files,
             [_line, name, hex] <- Regex.scan(~r/"name": "(\w+)", "hex": "([0-9a-f]+)"/, File.read!(file)),
             do: {Path.basename(file), name, Base.decode16!(hex, case: :lower)}

  @received ~w(announce opened started orders progress report refuse describe drain_request
               cordon_request move_request rebalance_request)a

  test "golden files exist and have cases" do
    assert length(@files) >= 2
    assert length(@cases) >= 2 * 20
  end

  for {file, name, bytes} <- @cases do
    # A message may contain an atom that does not exist in this VM yet.
    message = :erlang.binary_to_term(bytes)
    kind = elem(message, 2)

    if kind in @received do
      test "#{file}: #{name} is read" do
        message = :erlang.binary_to_term(unquote(bytes))
        assert {:ok, received} = Wire.read(message)
        assert elem(received, 0) == unquote(kind)
        assert same?(received, message)
      end
    else
      test "#{file}: #{name} is built" do
        message = :erlang.binary_to_term(unquote(bytes))
        assert built(unquote(kind), message |> Tuple.to_list() |> Enum.drop(3)) == message
        assert Wire.read(message) == {:error, :kind}
      end
    end
  end

  # The message that is read equals the one that was sent, without the parts that this side does not use.
  defp same?({:announce, pid, info}, message),
    do: pid == elem(message, 3) and info == Map.take(Map.put_new(elem(message, 4), :goals, []), Map.keys(info))

  defp same?({:report, id, report}, message) do
    sent = elem(message, 4)
    same = Map.take(sent, [:total, :moved, :left, :ended, :learnt, :balance])
    id == elem(message, 3) and same == Map.delete(report, :last)
  end

  defp same?({:drain_request, request, from, what}, message),
    do: {request, from, what} == {elem(message, 3), elem(message, 4), Map.put_new(elem(message, 5), :plan, false)}

  defp same?({:rebalance_request, request, from, what}, message) do
    given = &for {name, value} <- &1, value != nil, into: %{}, do: {name, value}
    {request, from, given.(what)} == {elem(message, 3), elem(message, 4), given.(elem(message, 5))}
  end

  defp same?({:progress, id, waits_for}, message),
    do: {id, waits_for} == {elem(message, 3), Map.get(elem(message, 4), :waits_for)}

  defp same?(received, message), do: tl(Tuple.to_list(received)) == Enum.drop(Tuple.to_list(message), 3)

  defp built(:welcome, [endpoint, %{release: release}]), do: Wire.welcome(endpoint, release)

  defp built(:servers, [id, first, records]) do
    entries = for <<module::32, sticky::32, priority::signed-32 <- records>>, do: {module, sticky, priority}
    {message, next, []} = Wire.servers(id, first, entries)
    assert next == first + length(entries)
    message
  end

  defp built(:view, [id, 1, 1, now_ms, nodes]), do: hd(Wire.view(id, %{now_ms: now_ms, nodes: nodes}))
  defp built(:events, [id, events]), do: hd(Wire.events(id, events))
  defp built(:cordon_done, [request, %{supervisors: supervisors}]), do: Wire.cordon_done(request, supervisors)
  defp built(kind, fields), do: apply(Wire, kind, fields)

  test "a message of another version is distinguished from an invalid one" do
    assert Wire.read({:durable_handoff, 2, :brand_new, :anything}) == {:error, {:version, 2}}
    assert Wire.read({:durable_handoff, :two, :orders, 1, []}) == {:error, {:version, :two}}
    assert Wire.read({:durable_handoff, 1, :brand_new}) == {:error, :kind}
    assert Wire.read({:durable_handoff, 1, "orders", 1, []}) == {:error, :kind}
    assert Wire.refuse_version(2) == {:durable_handoff, 1, :refuse, nil, {:version, 2, 1}}
    assert Wire.refuse_version(:two) == {:durable_handoff, 1, :refuse, nil, {:version, 0, 1}}
    # The largest that the Rust side takes, and the next one.
    assert Wire.refuse_version(2 ** 64 - 1) == {:durable_handoff, 1, :refuse, nil, {:version, 2 ** 64 - 1, 1}}
    assert Wire.refuse_version(2 ** 64) == {:durable_handoff, 1, :refuse, nil, {:version, 0, 1}}
  end

  test "a message that is not of this protocol is ignored" do
    for other <- [:hello, nil, [], {}, {:durable_handoff}, {:durable_handoff, 1}, {:other, 1, :orders}, %{}, self()],
        do: assert(Wire.read(other) == :other)
  end

  test "an invalid field is named without an exception" do
    too_long = String.duplicate("x", 4_097)
    order = {:start, 0, "b@h", 1, 1_000}

    for {field, kind, fields} <- [
          {:message, :announce, [:not_a_pid, %{release: "1", accepting: true}]},
          {:release, :announce, [self(), %{release: too_long, accepting: true}]},
          {:message, :announce, [self(), %{release: "1", accepting: nil}]},
          {:message, :opened, [-1]},
          {:message, :opened, [1, 2]},
          {:message, :opened, [0x1_0000_0000_0000_0000]},
          {:orders, :orders, [1, [order | :improper]]},
          {:orders, :orders, [1, [{:start, -1, "b@h", 1, 1_000}]]},
          {:orders, :orders, [1, [{:start, 0, :b@h, 1, 1_000}]]},
          {:orders, :orders, [1, [{:start, 0, <<255>>, 1, 1_000}]]},
          {:orders, :orders, [1, [{:start, 0x1_0000_0000, "b@h", 1, 1_000}]]},
          {:orders, :orders, [1, List.duplicate(order, 10_001)]},
          {:orders, :orders, [1, %{}]},
          {:message, :progress, [1, []]},
          {:report, :report, [1, %{total: 1}]},
          {:report, :report, [1, %{total: -1, moved: 0, left: %{}, concurrency: %{last: 1}, ended: :done}]},
          {:reason, :refuse, [1, :because]},
          {:reason, :refuse, [1, {:invalid, ["x" | "y"]}]},
          {:reason, :refuse, [1, {:invalid, List.duplicate("x", 1_001)}]},
          {:message, :refuse, ["1", :silent]},
          {:message, :describe, [1, :not_a_pid]},
          {:supervisor, :drain_request, [1, self(), %{supervisor: MyApp.Durable, timeout_ms: nil, dry_run: true}]},
          {:timeout_ms, :drain_request, [1, self(), %{supervisor: "S", timeout_ms: 1.5, dry_run: true}]},
          {:message, :drain_request, [1, self(), %{supervisor: "S", timeout_ms: nil}]},
          {:goals, :announce, [self(), %{release: "1", accepting: true, goals: [:rebalance]}]},
          {:goals, :announce, [self(), %{release: "1", accepting: true, goals: ["rebalance" | "drain"]}]},
          {:goals, :announce, [self(), %{release: "1", accepting: true, goals: List.duplicate("x", 65)}]},
          {:supervisor, :cordon_request, [1, self(), %{supervisor: :all, cordon: true}]},
          {:message, :cordon_request, [1, self(), %{supervisor: "S", cordon: 1}]},
          {:key, :move_request, [1, self(), %{supervisor: "S", to: "b@h"}]},
          {:to, :move_request, [1, self(), %{supervisor: "S", key: "k", to: :b@h}]},
          {:message, :move_request, [1, self(), [supervisor: "S"]]},
          {:timeout_ms, :rebalance_request, [1, self(), %{supervisor: "S", timeout_ms: -1, dry_run: true}]},
          {:tolerance, :rebalance_request, [1, self(), %{supervisor: "S", dry_run: true, tolerance: "0.1"}]},
          {:min_servers, :rebalance_request, [1, self(), %{supervisor: "S", dry_run: true, min_servers: -1}]},
          {:max_per_second, :rebalance_request, [1, self(), %{supervisor: "S", dry_run: true, max_per_second: 0.5}]},
          {:message, :rebalance_request, [1, :no_pid, %{supervisor: "S", dry_run: true}]}
        ] do
      assert Wire.read(List.to_tuple([:durable_handoff, 1, kind | fields])) == {:error, {:field, field}}
    end
  end

  test "servers, views and events are split into sizes that the other side accepts" do
    nodes = Enum.to_list(1..250)
    parts = Wire.view(7, %{now_ms: 1, nodes: nodes})
    assert [{_, 1, :view, 7, 1, 3, 1, first}, {_, 1, :view, 7, 2, 3, 1, _}, {_, 1, :view, 7, 3, 3, 1, last}] = parts
    assert {length(first), length(last)} == {100, 50}
    assert [{_, 1, :view, 7, 1, 1, 1, []}] = Wire.view(7, %{now_ms: 1, nodes: []})
    assert [{_, 1, :events, 7, some}, {_, 1, :events, 7, [:cancel]}] = Wire.events(7, List.duplicate(:cancel, 10_001))
    assert length(some) == 10_000
    assert {{_, 1, :servers, 7, 0, _records}, 5_000, [_last]} = Wire.servers(7, 0, List.duplicate({0, 0, 0}, 5_001))
  end
end
