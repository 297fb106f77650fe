defmodule DurableHandoff.Codec do
  @moduledoc """
  States to JSON and back, as Elixir's `JSON` does it and several times as fast.

  Guarantees:

    * Encoding gives, byte for byte, what `JSON.encode!/1` gives, and decoding, term for term, what `JSON.decode!/1` gives. Where
      these raise, the same exception is raised here. Bodies written with either are read with either.
    * No process waits for another one's state: up to 128 KB a call runs on a normal scheduler for less than a
      millisecond; more is done on a dirty one. Every call counts against its caller's time slice.
    * No term and no text ends the VM, however deep, long or broken.

  The work is done by a NIF. Whatever it does not know it leaves to `JSON`, piece by piece: structs that implement
  `JSON.Encoder`, keys that implement `String.Chars`, integers above 64 bits, what is nested deeper than 128 levels, and every error.
  A `DateTime` in UTC it knows itself.

  On Elixir before 1.18, which has no `JSON`, this library writes and reads these pieces itself, with the same results. In place of
  `JSON.Encoder` stands `DurableHandoff.Codec.Encodable`, and a text that is not JSON raises `DurableHandoff.Codec.DecodeError` with the
  fields and the message of `JSON.DecodeError`.

      iex> DurableHandoff.Codec.encode!(%{"count" => 3, "tags" => ["a", nil], "at" => ~U[2026-01-02 03:04:05Z]})
      ~S({"at":"2026-01-02T03:04:05Z","count":3,"tags":["a",null]})
      iex> DurableHandoff.Codec.decode!(~S({"count": 3, "tags": ["a", null]}))
      %{"count" => 3, "tags" => ["a", nil]}

  ## Memory

  Strings of more than 64 bytes in a decoded term are parts of the text they were read from, and keep all of it in memory; those that
  had escapes are parts of blocks of at most 64 KB (above 16 KB, of at most 4 MB), or on their own. A state that keeps a few of them
  for long and drops the rest is better decoded with `strings: :copy`.

  A long output grows while it is written. `size_hint: bytes`, for instance the size of the same state when it was last written, saves that;
  it never changes the result.
  """

  alias DurableHandoff.Codec.{DecodeError, Plain}
  alias DurableHandoff.{Native, NativeError}

  # Up to that many bytes a call stays on its scheduler. A dirty call costs 3 microseconds, and 50 when the dirty scheduler sleeps.
  @short 128 * 1024

  @type reason :: DecodeError.reason()
  @type encode_option :: {:size_hint, bytes :: non_neg_integer()}
  @type decode_option :: {:strings, :reference | :copy}

  @doc "The JSON of a term as one binary."
  @spec encode!(term(), [encode_option()]) :: binary()
  def encode!(term, options \\ []) do
    case write(term, options) do
      json when is_binary(json) -> json
      parts -> parts |> fill() |> IO.iodata_to_binary()
    end
  end

  @doc "The JSON of a term; cheaper than `encode!/2` when the term has parts that the NIF leaves to Elixir."
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
  The term of a JSON text, or what is wrong with it, in the words of `JSON.decode/1`.

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

  # JSON has no atoms but true, false and nil, so that an answer in place of a term is unambiguous.
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
