defmodule HandoffDemo.Server do
  @moduledoc """
  The durable server of the demo: a counter beside a document of a few kilobytes, as in an application that
  keeps a chat or a cart.

  It records when its user code starts and stops, and its counter at these times. It stores its state only
  when it stops, so an increment that a move loses stays lost and is noticed. A `synced` server stores each
  increment before it answers.
  """

  use DurableServer, vsn: 1

  alias HandoffDemo.Recorder

  @doc "The key of server number `index`."
  @spec key(non_neg_integer()) :: String.t()
  def key(index), do: "account-#{index}"

  @typedoc """
  `bytes`: the size of its document, nil for a typical one of about 4 KB. `synced`: whether none of the
  servers, every second one or all of them store each increment. `start_ms`: how long each start takes.
  """
  @type kind :: %{bytes: nil | pos_integer(), synced: :none | :half | :all, start_ms: non_neg_integer()}

  @doc "The initial state of server number `index`."
  @spec initial_state(non_neg_integer(), kind()) :: map()
  def initial_state(index, kind) do
    document = if kind.bytes, do: %{"text" => String.duplicate("x", kind.bytes)}, else: document(index)

    %{
      index: index,
      counter: 0,
      synced: kind.synced == :all or (kind.synced == :half and rem(index, 2) == 0),
      start_ms: kind.start_ms,
      document: document,
      digest: :erlang.phash2(document)
    }
  end

  @impl true
  def init(state) do
    Process.sleep(state.start_ms)
    Recorder.record(:init, state.index, state.counter)
    {:ok, state, permanent: true, auto_sync: false}
  end

  @impl true
  def dump_state(state), do: Map.new(state, fn {name, value} -> {Atom.to_string(name), value} end)

  @impl true
  def load_state(_old_vsn, stored) do
    %{
      index: stored["index"],
      counter: stored["counter"],
      synced: stored["synced"],
      start_ms: stored["start_ms"],
      document: stored["document"],
      digest: stored["digest"]
    }
  end

  # The answer is the counter, and whether it had to be stored before.
  @impl true
  def handle_call({:increment, sync?}, _from, state) do
    state = %{state | counter: state.counter + 1}

    if sync? or state.synced,
      do: {:reply, {state.counter, true}, state, :sync},
      else: {:reply, {state.counter, false}, state}
  end

  def handle_call(:read, _from, state), do: {:reply, {state.counter, false}, state}

  # The hash of a term is the same in every release of Erlang.
  def handle_call(:report, _from, state),
    do: {:reply, {state.counter, :erlang.phash2(state.document) == state.digest}, state}

  def handle_call({:grow, bytes}, _from, state) do
    document = %{"text" => String.duplicate("x", bytes)}
    {:reply, :ok, %{state | document: document, digest: :erlang.phash2(document)}}
  end

  @impl true
  def terminate(_reason, state), do: Recorder.record(:terminate, state.index, state.counter)

  defp document(index) do
    %{
      "owner" => %{
        "id" => index,
        "name" => "Account #{index}",
        "email" => "account#{index}@example.com",
        "flags" => [true, false, nil],
        "address" => %{
          "street" => "#{index} Main Street",
          "city" => "Springfield",
          "geo" => [48.1 + index / 1000, 11.6]
        }
      },
      "items" =>
        for line <- 1..12 do
          %{
            "sku" => "SKU-#{index}-#{line}",
            "quantity" => rem(line, 4) + 1,
            "price" => 9.99 * line,
            "options" => %{"gift" => false}
          }
        end,
      "messages" =>
        for n <- 1..16 do
          %{
            "id" => n,
            "from" => "user-#{rem(n, 3)}",
            "read" => rem(n, 2) == 0,
            "text" => String.duplicate("Message #{n}. ", 8)
          }
        end
    }
  end
end
