defmodule HandoffBench.Codec do
  @moduledoc """
  The codec compared with its peer: Elixir's `JSON`; `:jiffy` where there is no `JSON`; the library's own Elixir code
  where there is neither.

  Every figure is the median of rounds in which the codec and its peer run one after the other, each in a new
  process, in alternating order. A ratio is the median of the ratios of the rounds, so that changes in the
  speed of the machine affect both sides. Then, in a VM with one scheduler, it measures how long a process
  that only yields has to wait while another one encodes and decodes 5 MB.
  """

  @compile {:no_warn_undefined, JSON}

  import HandoffBench.Timing

  alias DurableHandoff.Codec
  alias HandoffBench.Codec.{States, Waiting}
  alias HandoffBench.Options

  # The length of a round, whatever is measured.
  @round_us 20_000

  @doc "Runs the measurement with command-line arguments and prints its tables."
  @spec main([String.t()]) :: :ok
  def main(argv) do
    strict = [rounds: :integer, keys: :string, seconds: :integer]
    options = Options.parse!(argv, strict, %{rounds: 25, keys: "strings", seconds: 3})
    unless options.keys in ["strings", "atoms"], do: Mix.raise("--keys takes strings or atoms")
    keys = if options.keys == "atoms", do: :atoms, else: :strings
    peer = peer()
    IO.puts("State codec and #{peer.name}, Elixir #{System.version()}, OTP #{System.otp_release()}, #{keys} as keys")
    if peer.remark, do: IO.puts(peer.remark)

    rows = for {name, state} <- States.all(keys), do: row(name, state, peer, options.rounds)
    print(rows, peer)
    waits = Waiting.measure(options.seconds)
    print_waits(waits)
    Options.write_json(options, %{peer: peer.name, keys: keys, states: rows, waits: waits})
    :ok
  end

  defp peer do
    cond do
      Code.ensure_loaded?(JSON) ->
        %{name: "JSON", encode: &JSON.encode!/1, decode: &JSON.decode!/1, remark: nil}

      Code.ensure_loaded?(:jiffy) ->
        # Called dynamically: it is on the code path of some machines, but is not a dependency.
        %{
          name: "jiffy",
          encode: &IO.iodata_to_binary(apply(:jiffy, :encode, [&1, [:use_nil]])),
          decode: &apply(:jiffy, :decode, [&1, [:return_maps, :use_nil]]),
          remark: nil
        }

      true ->
        %{
          name: "Elixir code",
          encode: &IO.iodata_to_binary(Codec.Encoder.encode_to_iodata!(&1)),
          decode: &elem(Codec.Decoder.decode(&1), 1),
          remark:
            "This Elixir has no JSON and :jiffy is not on the code path (Debian: erlang-jiffy): the peer is the library's own fallback."
        }
    end
  end

  defp row(name, state, peer, rounds) do
    json = Codec.encode!(state)
    check!(name, state, json, peer)
    # The peer creates the strings, numbers and atoms, so that both encode the same terms.
    {encode, peer_encode, encode_ratio} = medians(fn -> Codec.encode!(state) end, fn -> peer.encode.(state) end, rounds)

    {decode, peer_decode, decode_ratio} = medians(fn -> Codec.decode!(json) end, fn -> peer.decode.(json) end, rounds)

    %{
      name: name,
      bytes: byte_size(json),
      encode_us: encode,
      peer_encode_us: peer_encode,
      encode_ratio: encode_ratio,
      decode_us: decode,
      peer_decode_us: peer_decode,
      decode_ratio: decode_ratio
    }
  end

  # Only measured if both give the same result.
  defp check!(name, state, json, peer) do
    same? =
      if peer.name == "JSON",
        do: peer.encode.(state) == json,
        else: peer.decode.(peer.encode.(state)) == peer.decode.(json)

    unless same?, do: raise("#{name}: the encodings differ")
    unless Codec.decode!(json) === peer.decode.(json), do: raise("#{name}: the terms differ")
  end

  # The medians of the codec, of its peer, and of the ratio.
  defp medians(codec, peer, rounds) do
    {codec_count, peer_count} = {count(codec), count(peer)}

    times =
      for round <- 1..rounds do
        if rem(round, 2) == 0 do
          codec_time = per_call_us(codec, codec_count)
          {codec_time, per_call_us(peer, peer_count)}
        else
          peer_time = per_call_us(peer, peer_count)
          {per_call_us(codec, codec_count), peer_time}
        end
      end

    {codec_times, peer_times} = Enum.unzip(times)
    ratios = for {codec_time, peer_time} <- times, do: peer_time / codec_time
    {median(codec_times), median(peer_times), median(ratios)}
  end

  defp count(contender) do
    per_call_us(contender, 2)
    max(1, round(@round_us / per_call_us(contender, 3)))
  end

  defp print(rows, peer) do
    IO.puts("""

    medians, microseconds          encode                               decode
    state              bytes       codec      #{pad(peer.name, 11)}ratio      codec      #{pad(peer.name, 11)}ratio
    """)

    for row <- rows do
      times = [row.encode_us, row.peer_encode_us, row.encode_ratio, row.decode_us, row.peer_decode_us, row.decode_ratio]
      IO.puts(pad(row.name, 19) <> pad(row.bytes, 12) <> Enum.map_join(times, &pad(number(&1), 11)))
    end
  end

  defp print_waits(waits) do
    IO.puts("""

    Longest wait of a process beside the work, one scheduler, milliseconds
    """)

    for wait <- waits do
      IO.puts(pad(wait.name, 31) <> pad(number(wait.longest_ms), 11) <> "#{wait.calls} calls")
    end
  end

  defp pad(value, width), do: String.pad_trailing("#{value}", width)

  defp number(value) when value >= 1_000, do: value |> round() |> Integer.to_string()
  defp number(value), do: decimals(value)
end
