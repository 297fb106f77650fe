defmodule Store.Proxy do
  @moduledoc """
  A proxy before an HTTP server that can be told what goes wrong with the next requests, and remembers them all.

  `plan/2` takes one step for each of the next requests; after them everything passes:

    * `:pass`
    * `:lose_answer`: the server gets the request and answers, the client only sees the connection end;
    * `:hang`: the client gets no answer until the proxy stops;
    * `{:answer, status, headers, body}`: the server gets nothing.
  """

  use GenServer

  @type step :: :pass | :lose_answer | :hang | {:answer, pos_integer(), [{String.t(), String.t()}], String.t()}
  @type request :: %{method: String.t(), path: String.t(), headers: %{String.t() => String.t()}}

  @spec start_link(String.t()) :: GenServer.on_start()
  def start_link(upstream), do: GenServer.start_link(__MODULE__, upstream)

  @doc "Where clients connect."
  @spec endpoint(pid()) :: String.t()
  def endpoint(proxy), do: GenServer.call(proxy, :endpoint)

  @spec plan(pid(), [step()]) :: :ok
  def plan(proxy, steps), do: GenServer.call(proxy, {:plan, steps})

  @doc "All requests since the last call of this, oldest first."
  @spec requests(pid()) :: [request()]
  def requests(proxy), do: GenServer.call(proxy, :requests)

  @doc "How many connections are open: a request that was given up is one less."
  @spec open(pid()) :: non_neg_integer()
  def open(proxy), do: GenServer.call(proxy, :open)

  @impl true
  def init(upstream) do
    Process.flag(:trap_exit, true)
    uri = URI.parse(upstream)
    {:ok, listener} = :gen_tcp.listen(0, [:binary, active: false, ip: {127, 0, 0, 1}, reuseaddr: true, backlog: 128])
    {:ok, port} = :inet.port(listener)
    proxy = self()
    spawn_link(fn -> accept(listener, proxy, uri) end)
    {:ok, %{endpoint: "http://127.0.0.1:#{port}#{uri.path}", steps: [], requests: [], open: MapSet.new()}}
  end

  @impl true
  def handle_call(:endpoint, _from, state), do: {:reply, state.endpoint, state}
  def handle_call({:plan, steps}, _from, state), do: {:reply, :ok, %{state | steps: steps}}
  def handle_call(:requests, _from, state), do: {:reply, Enum.reverse(state.requests), %{state | requests: []}}
  def handle_call(:open, _from, state), do: {:reply, MapSet.size(state.open), state}

  def handle_call({:next, request}, {pid, _tag}, state) do
    Process.monitor(pid)
    {step, steps} = List.pop_at(state.steps, 0, :pass)
    {:reply, step, %{state | steps: steps, requests: [request | state.requests], open: MapSet.put(state.open, pid)}}
  end

  @impl true
  def handle_info({:DOWN, _ref, :process, pid, _reason}, state),
    do: {:noreply, %{state | open: MapSet.delete(state.open, pid)}}

  def handle_info({:EXIT, _pid, _reason}, state), do: {:noreply, state}

  defp accept(listener, proxy, uri) do
    case :gen_tcp.accept(listener) do
      {:ok, client} ->
        pid =
          spawn(fn ->
            Process.monitor(proxy)
            receive do: (:yours -> serve(client, proxy, uri))
          end)

        :ok = :gen_tcp.controlling_process(client, pid)
        send(pid, :yours)
        accept(listener, proxy, uri)

      # The test is over.
      {:error, :closed} ->
        :ok
    end
  end

  # One request a connection: both sides are told so, and nothing has to be parsed on the way back.
  defp serve(client, proxy, uri) do
    with {:ok, head, body} <- read_request(client, "") do
      {request, lines} = parse(head)

      case GenServer.call(proxy, {:next, request}) do
        :pass -> :gen_tcp.send(client, forward(uri, lines, body))
        :lose_answer -> forward(uri, lines, body)
        :hang -> wait_for_end(client)
        {:answer, status, headers, body} -> :gen_tcp.send(client, answer(status, headers, body))
      end
    end

    :gen_tcp.close(client)
  end

  defp read_request(client, received) do
    case String.split(received, "\r\n\r\n", parts: 2) do
      [head, body] ->
        read_body(client, head, body, content_length(head))

      [_incomplete] ->
        with {:ok, bytes} <- :gen_tcp.recv(client, 0), do: read_request(client, received <> bytes)
    end
  end

  defp read_body(_client, head, body, length) when byte_size(body) >= length, do: {:ok, head, body}

  defp read_body(client, head, body, length) do
    with {:ok, bytes} <- :gen_tcp.recv(client, 0), do: read_body(client, head, body <> bytes, length)
  end

  defp content_length(head) do
    case Regex.run(~r/^content-length: *(\d+)/im, head) do
      [_line, length] -> String.to_integer(length)
      nil -> 0
    end
  end

  defp parse(head) do
    [first | lines] = String.split(head, "\r\n")
    [method, path, _version] = String.split(first, " ")

    headers =
      for line <- lines, into: %{} do
        [name, value] = String.split(line, ":", parts: 2)
        {String.downcase(name), String.trim(value)}
      end

    {%{method: method, path: path, headers: headers}, [first | lines]}
  end

  defp forward(uri, lines, body) do
    lines = Enum.reject(lines, &(&1 =~ ~r/^connection:/i)) ++ ["connection: close", "", body]
    {:ok, server} = :gen_tcp.connect(to_charlist(uri.host), uri.port, [:binary, active: false])
    :ok = :gen_tcp.send(server, Enum.intersperse(lines, "\r\n"))
    answer = read_all(server, [])
    :gen_tcp.close(server)
    answer
  end

  defp read_all(socket, read) do
    case :gen_tcp.recv(socket, 0) do
      {:ok, bytes} -> read_all(socket, [read | bytes])
      {:error, _end} -> read
    end
  end

  defp wait_for_end(client) do
    :inet.setopts(client, active: true)

    receive do
      {:tcp_closed, ^client} -> :ok
      {:tcp_error, ^client, _reason} -> :ok
      {:DOWN, _ref, :process, _proxy, _reason} -> :ok
    end
  end

  defp answer(status, headers, body) do
    headers = [{"content-length", byte_size(body)}, {"connection", "close"} | headers]
    ["HTTP/1.1 #{status} Told\r\n", for({name, value} <- headers, do: "#{name}: #{value}\r\n"), "\r\n", body]
  end
end
