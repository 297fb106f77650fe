defmodule HandoffBench.Store do
  @moduledoc """
  Conditional PUTs: how many per second, and how much CPU time of this VM each costs, through
  `DurableHandoff.Store` and through Erlang's own `httpc` with S3's signatures.

  Both write the same terms, encoded the same way, to the same server: `native/store_servers`, a process of
  its own that keeps objects in memory, or any S3 server named with `--endpoint`, in its bucket "handoff".
  Every PUT is conditional on the etag that the PUT before it returned. CPU is all of this VM's, user and system, from the
  operating system.
  """

  alias DurableHandoff.Store
  alias DurableHandoff.Store.Body
  alias HandoffBench.{Options, Timing}
  alias HandoffBench.Store.Httpc

  @defaults %{writers: 16, seconds: 3, rounds: 5, bytes: 2_048, endpoint: nil}

  @doc "Runs the measurement with command-line arguments and prints its table."
  @spec main([String.t()]) :: :ok
  def main(argv) do
    strict = [
      writers: :integer,
      seconds: :integer,
      rounds: :integer,
      bytes: :integer,
      server: :string,
      endpoint: :string
    ]

    options = Options.parse!(argv, strict, @defaults)
    {server, endpoint} = if options.endpoint, do: {nil, options.endpoint}, else: start_server(options.server)
    state = %{"text" => String.duplicate("0123456789abcdef", div(options.bytes, 16)), "n" => 0}
    clients = [store: store(endpoint), httpc: Httpc.client(endpoint, options.writers)]

    # One short round of each client first, for connections, caches and code loading.
    for {_name, put} <- clients, do: round_of(put, state, %{options | seconds: 1})
    rounds = for _ <- 1..options.rounds, {name, put} <- clients, do: {name, round_of(put, state, options)}
    if server, do: Port.close(server)

    figures = for {name, _put} <- clients, into: %{}, do: {name, medians(Keyword.get_values(rounds, name))}
    print(options, figures)
    Options.write_json(options, json(options, figures))
    :ok
  end

  defp start_server(path) do
    port = Port.open({:spawn_executable, path}, [:binary, {:line, 200}, :exit_status, args: ["s3"]])

    receive do
      {^port, {:data, {:eol, endpoint}}} -> {port, endpoint}
    after
      10_000 -> raise "the server at #{path} did not start"
    end
  end

  defp store(endpoint) do
    config = [endpoint: endpoint, access_key_id: Httpc.key_id(), secret_access_key: Httpc.secret(), region: "us-east-1"]
    {:ok, %{state: store}} = Store.init_backend(url: "s3://handoff/store", config: config)

    fn key, data, etag ->
      if etag do
        {:ok, %{etag: etag}} = Store.put_object(store, key, data, etag: etag)
        etag
      else
        {:ok, %{etag: etag}} = Store.put_object(store, key, data)
        etag
      end
    end
  end

  defp round_of(put, state, options) do
    before = cpu_us()
    started = System.monotonic_time(:microsecond)
    until = started + options.seconds * 1_000_000

    puts =
      1..options.writers
      |> Enum.map(fn writer -> Task.async(fn -> write(put, "writer/#{writer}", state, nil, until, 0) end) end)
      |> Task.await_many(:infinity)
      |> Enum.sum()

    elapsed = System.monotonic_time(:microsecond) - started
    %{per_second: puts * 1_000_000 / elapsed, cpu_us: (cpu_us() - before) / puts}
  end

  defp write(put, key, state, etag, until, count) do
    if System.monotonic_time(:microsecond) >= until do
      count
    else
      etag = put.(key, %{state | "n" => count}, etag)
      write(put, key, state, etag, until, count + 1)
    end
  end

  # utime and stime of this process, all its threads, in clock ticks of 10 ms.
  defp cpu_us do
    [_name, fields] = "/proc/self/stat" |> File.read!() |> String.split(") ", parts: 2)
    fields = String.split(fields, " ")
    10_000 * (String.to_integer(Enum.at(fields, 11)) + String.to_integer(Enum.at(fields, 12)))
  end

  defp medians(rounds) do
    middle = fn field -> rounds |> Enum.map(& &1[field]) |> Timing.median() end
    %{per_second: middle.(:per_second), cpu_us: middle.(:cpu_us)}
  end

  defp print(options, %{store: store, httpc: httpc}) do
    {:ok, body} = Body.encode(%{"text" => String.duplicate("0123456789abcdef", div(options.bytes, 16)), "n" => 0})

    IO.puts("""
    Conditional PUTs of #{byte_size(body)} bytes, #{options.writers} writers, Elixir #{System.version()}, OTP #{System.otp_release()},
    median of #{options.rounds} rounds of #{options.seconds} s

                              PUTs/s     CPU per PUT
      DurableHandoff.Store  #{figure(store.per_second, 8)}   #{figure(store.cpu_us, 8)} us
      httpc, signed         #{figure(httpc.per_second, 8)}   #{figure(httpc.cpu_us, 8)} us
      store / httpc         #{ratio(store.per_second / httpc.per_second)}   #{ratio(store.cpu_us / httpc.cpu_us)}
    """)
  end

  defp figure(number, width), do: number |> round() |> Integer.to_string() |> String.pad_leading(width)
  defp ratio(number), do: number |> Timing.decimals() |> String.pad_leading(8)

  defp json(options, %{store: store, httpc: httpc}) do
    client = fn figures -> %{puts_per_second: figures.per_second, cpu_us_per_put: figures.cpu_us} end

    %{
      writers: options.writers,
      bytes: options.bytes,
      store: client.(store),
      httpc: client.(httpc),
      ratio_puts_per_second: store.per_second / httpc.per_second,
      ratio_cpu_per_put: store.cpu_us / httpc.cpu_us
    }
  end
end
