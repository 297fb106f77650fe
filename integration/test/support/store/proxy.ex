defmodule Store.Proxy do
  @moduledoc """
  A server of `native/store_servers` that records all requests and causes faults on command.

      {:ok, proxy} = Proxy.start_link("http://127.0.0.1:9000")

  is a proxy in front of another server. `{:s3, flaws}` is an S3 server in memory with these flaws
  (`store-servers s3 --help` lists them), and `:google` is a Google Cloud Storage. All of them also serve
  requests for credentials. It ends with its owner.

  `rules/2` sets what happens to which requests, with the fields of `store_servers::Rule`:

      Proxy.rules(proxy, [%{on: [:claim], key: "*/counter", times: 1, applied: true, then: %{answer: %{status: 499}}}])

  `plan/2` is short for rules that apply to one request each, in this order; after them everything passes:

    * `:pass`
    * `:lose_answer`: the server gets the request and answers, but the connection to the client is closed;
    * `:hang`: the client gets no answer until the proxy stops;
    * `{:answer, status, headers, body}`: the proxy answers, and the server gets no request.
  """

  use GenServer

  alias DurableHandoff.Codec

  @type upstream :: String.t() | {:s3, [String.t()]} | :google
  @type step :: :pass | :lose_answer | :hang | {:answer, pos_integer(), [{String.t(), String.t()}], String.t()}
  @type request :: %{
          kind: String.t(),
          method: String.t(),
          path: String.t(),
          headers: %{String.t() => String.t()},
          rule: non_neg_integer() | nil
        }

  # Far longer than the program needs for any command.
  @patience 30_000
  @line 65_536

  @request [:kind, :method, :path, :headers, :rule]
  @counts [:open, :held, :kinds, :rules, :bytes_in, :bytes_out]

  @spec start_link(upstream()) :: GenServer.on_start()
  def start_link(upstream), do: GenServer.start_link(__MODULE__, upstream)

  @doc "Where clients connect."
  @spec endpoint(pid()) :: String.t()
  def endpoint(proxy), do: GenServer.call(proxy, :endpoint, @patience)

  @doc "Replaces the plan and all rules. They do not change for requests in flight."
  @spec rules(pid(), [map()]) :: :ok
  def rules(proxy, rules), do: ok(proxy, %{do: :rules, rules: rules})

  @doc "Replaces all rules by these steps."
  @spec plan(pid(), [step()]) :: :ok
  def plan(proxy, steps), do: rules(proxy, Enum.map(steps, &rule/1))

  @doc "Releases this many requests that rules with `hold: true` hold now or later."
  @spec release(pid(), pos_integer()) :: :ok
  def release(proxy, count), do: ok(proxy, %{do: :release, count: count})

  @doc "Sets how many seconds new credentials are valid."
  @spec credentials_last(pid(), pos_integer()) :: :ok
  def credentials_last(proxy, seconds), do: ok(proxy, %{do: :credentials, last_s: seconds})

  @doc "All requests since the last call of this function, oldest first."
  @spec requests(pid()) :: [request()]
  def requests(proxy) do
    %{"requests" => requests} = command(proxy, %{do: :requests})
    Enum.map(requests, &named(&1, @request))
  end

  @doc "Statistics since the start: `open`, `held`, `kinds`, `rules`, `bytes_in`, `bytes_out`."
  @spec counts(pid()) :: map()
  def counts(proxy), do: proxy |> command(%{do: :counts}) |> named(@counts)

  @doc "The number of requests in flight, without those whose client has given up."
  @spec open(pid()) :: non_neg_integer()
  def open(proxy), do: counts(proxy).open

  @impl true
  def init(upstream) do
    options = [:binary, {:line, @line}, :exit_status, args: arguments(upstream)]
    port = Port.open({:spawn_executable, Store.Servers.program()}, options)
    {:ok, %{port: port, endpoint: line(port, "")}}
  end

  @impl true
  def handle_call(:endpoint, _from, state), do: {:reply, state.endpoint, state}

  def handle_call({:command, command}, _from, state) do
    Port.command(state.port, [Codec.encode_to_iodata!(command), "\n"])
    {:reply, Codec.decode!(line(state.port, "")), state}
  end

  defp ok(proxy, command) do
    %{"ok" => true} = command(proxy, command)
    :ok
  end

  defp named(map, names), do: Map.new(names, &{&1, Map.fetch!(map, Atom.to_string(&1))})

  defp command(proxy, command), do: GenServer.call(proxy, {:command, command}, @patience)

  defp line(port, read) do
    receive do
      {^port, {:data, {:eol, rest}}} -> read <> rest
      {^port, {:data, {:noeol, more}}} -> line(port, read <> more)
      {^port, {:exit_status, status}} -> raise "store-servers ended with status #{status}"
    after
      @patience -> raise "store-servers does not answer"
    end
  end

  defp arguments({:s3, flaws}), do: ["s3" | Enum.flat_map(flaws, &["--flaw", &1])]
  defp arguments(:google), do: ["google"]
  defp arguments(address), do: ["proxy", address]

  defp rule(:pass), do: %{times: 1}
  defp rule(:lose_answer), do: %{times: 1, applied: true, then: :cut}
  defp rule(:hang), do: %{times: 1, then: :hang}

  defp rule({:answer, status, headers, body}) do
    headers = for {name, value} <- headers, do: [name, value]
    %{times: 1, then: %{answer: %{status: status, headers: headers, body: body}}}
  end
end
