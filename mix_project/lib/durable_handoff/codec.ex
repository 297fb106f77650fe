defmodule DurableHandoff.Codec do
  @moduledoc """
  Encodes states as JSON and decodes them, with the results of Elixir's `JSON`, several times as fast.

  Guarantees:

    * Encoding gives the bytes of `JSON.encode!/1`, and decoding the term of `JSON.decode!/1`. Where these raise,
      this module raises the same exception. Each reads what the other wrote.
    * A large state does not block other processes: a call for up to 128 KB runs on a normal scheduler for less than
      a millisecond, a larger one on a dirty scheduler. Every call is charged to its caller's time slice.
    * No term and no text ends the VM, however deep, long or broken.

  A NIF does the work. It leaves some parts to `JSON`: structs that implement `JSON.Encoder`, keys that implement
  `String.Chars`, integers above 64 bits, terms nested deeper than 128 levels, and every error. It encodes a
  `DateTime` in UTC itself.

  Elixir before 1.18 has no `JSON`. There, this library encodes and decodes these parts itself, with the same
  results: `DurableHandoff.Codec.Encodable` replaces `JSON.Encoder`, and a text that is not JSON raises
  `DurableHandoff.Codec.DecodeError`, which has the fields and the message of `JSON.DecodeError`.

      iex> DurableHandoff.Codec.encode!(%{"count" => 3, "tags" => ["a", nil], "at" => ~U[2026-01-02 03:04:05Z]})
      ~S({"at":"2026-01-02T03:04:05Z","count":3,"tags":["a",null]})
      iex> DurableHandoff.Codec.decode!(~S({"count": 3, "tags": ["a", null]}))
      %{"count" => 3, "tags" => ["a", nil]}

  ## Memory

  A string of more than 64 bytes in a decoded term refers to the decoded text and keeps all of that text in
  memory. A string with escapes is copied: into a shared block of at most 64 KB, or, above 16 KB, of at most 4
  MB. For a state that keeps a few strings for long and drops the rest, use `strings: :copy`.

  The buffer of a long output grows during encoding. `size_hint: bytes` avoids that, for example with the size of the
  last encoding of the same state. It never changes the result.
  """

  alias DurableHandoff.Codec.{DecodeError, Plain}
  alias DurableHandoff.{Native, NativeError}

  # Up to this many bytes a call stays on its scheduler. A dirty call costs 3 microseconds, and 50 when the
  # dirty scheduler sleeps.
  @short 128 * 1024

  @type reason :: DecodeError.reason()
  @type encode_option :: {:size_hint, bytes :: non_neg_integer()}
  @type decode_option :: {:strings, :reference | :copy}

  @doc "The JSON of a term as one binary."
  @spec encode!(term(), [encode_option()]) :: binary()
  def encode!(term, options \\ []), do: term |> encode_to_iodata!(options) |> IO.iodata_to_binary()

  @doc "The JSON of a term as iodata. Cheaper than `encode!/2` for terms with parts that the NIF leaves to Elixir."
  @spec encode_to_iodata!(term(), [encode_option()]) :: iodata()
  def encode_to_iodata!(term, options \\ []) do
    case write(term, options) do
      json when is_binary(json) -> json
      parts -> fill(parts)
    end
  end

  @doc """
  The JSON of a term, or the exception that `encode!/2` would raise.

      iex> DurableHandoff.Codec.encode([1, 2.5])
      {:ok, "[1,2.5]"}
      iex> {:error, %Protocol.UndefinedError{value: {1, 2}}} = DurableHandoff.Codec.encode([{1, 2}])
  """
  @spec encode(term(), [encode_option()]) :: {:ok, binary()} | {:error, Exception.t()}
  def encode(term, options \\ []) do
    {:ok, encode!(term, options)}
  rescue
    error in NativeError -> reraise error, __STACKTRACE__
    error -> {:error, error}
  end

  @doc "The term of a JSON text."
  @spec decode!(binary(), [decode_option()]) :: term()
  def decode!(text, options \\ []) when is_binary(text) do
    case read(text, options) do
      :refused -> Plain.decode!(text)
      term -> term
    end
  end

  @doc """
  The term of a JSON text, or the error of `JSON.decode/1`.

      iex> DurableHandoff.Codec.decode("[1, 2.5]")
      {:ok, [1, 2.5]}
      iex> DurableHandoff.Codec.decode("[1, 2,]")
      {:error, {:invalid_byte, 6, ?]}}
  """
  @spec decode(binary(), [decode_option()]) :: {:ok, term()} | {:error, reason()}
  def decode(text, options \\ []) when is_binary(text) do
    case read(text, options) do
      :refused -> Plain.decode(text)
      term -> {:ok, term}
    end
  end

  defp write(term, options) do
    hint = size_hint(options)

    case if(hint <= @short, do: Native.codec_encode(term), else: :too_large) do
      :too_large -> Native.codec_encode_dirty(term, hint)
      written -> written
    end
  end

  # The only atoms of JSON are true, false and nil, so any other atom in place of a term is unambiguous.
  defp read(text, options) when byte_size(text) <= @short, do: Native.codec_decode(text, copy?(options))
  defp read(text, options), do: Native.codec_decode_dirty(text, copy?(options))

  defp size_hint([]), do: 0
  defp size_hint(options), do: Keyword.fetch!(Keyword.validate!(options, size_hint: 0), :size_hint)

  defp copy?([]), do: false

  defp copy?(options) do
    case Keyword.validate!(options, strings: :reference) do
      [strings: :reference] -> false
      [strings: :copy] -> true
      [strings: other] -> raise ArgumentError, "strings: takes :reference or :copy, got: #{inspect(other)}"
    end
  end

  defp fill([]), do: []
  defp fill([part | rest]) when is_binary(part), do: [part | fill(rest)]
  defp fill([{value} | rest]), do: [Plain.encode_to_iodata!(value) | fill(rest)]
  defp fill([{key, :key} | rest]), do: [Plain.encode_key!(key) | fill(rest)]
end
