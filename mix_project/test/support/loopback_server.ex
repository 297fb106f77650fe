defmodule DurableHandoff.LoopbackServer do
  @moduledoc """
  An HTTP server on the loopback interface with answers from the test.

  `answer` gets the request line and the headers as text, and returns the bytes of the answer. `{:hang,
  bytes}` sends these bytes and then nothing; the connection stays open until the other side closes it.
  `requests/1` returns the received requests.
  """

  use GenServer

  def start_link(answer), do: GenServer.start_link(__MODULE__, answer)

  def url(server), do: "http://127.0.0.1:#{GenServer.call(server, :port)}"
  def requests(server), do: GenServer.call(server, :requests)

  def ok(body), do: "HTTP/1.1 200 OK\r\ncontent-length: #{byte_size(body)}\r\nconnection: close\r\n\r\n" <> body
  def status(line), do: "HTTP/1.1 #{line}\r\ncontent-length: 4\r\nconnection: close\r\n\r\noops"

  @impl true
  def init(answer) do
    {:ok, listener} = :gen_tcp.listen(0, [:binary, active: false, ip: {127, 0, 0, 1}, reuseaddr: true])
    {:ok, port} = :inet.port(listener)
    server = self()
    spawn_link(fn -> accept(listener, server, answer) end)
    {:ok, %{port: port, requests: []}}
  end

  @impl true
  def handle_call(:port, _from, state), do: {:reply, state.port, state}
  def handle_call(:requests, _from, state), do: {:reply, Enum.reverse(state.requests), state}
  def handle_call({:request, text}, _from, state), do: {:reply, :ok, %{state | requests: [text | state.requests]}}

  defp accept(listener, server, answer) do
    case :gen_tcp.accept(listener) do
      {:ok, socket} ->
        serve(socket, server, answer)
        accept(listener, server, answer)

      # The listener ends with the server.
      {:error, :closed} ->
        :ok
    end
  end

  defp serve(socket, server, answer) do
    request = read(socket, "")
    # Recorded before it is answered.
    :ok = GenServer.call(server, {:request, request})

    case answer.(request) do
      {:hang, bytes} ->
        :gen_tcp.send(socket, bytes)
        {:error, :closed} = :gen_tcp.recv(socket, 0)

      bytes ->
        :gen_tcp.send(socket, bytes)
        :gen_tcp.close(socket)
    end
  end

  defp read(socket, text) do
    if text =~ "\r\n\r\n" do
      text
    else
      case :gen_tcp.recv(socket, 0) do
        {:ok, more} -> read(socket, text <> more)
        {:error, :closed} -> text
      end
    end
  end
end
