defmodule DurableHandoff.CodecHelpers do
  @moduledoc "What the tests of the codec share."

  import ExUnit.Assertions, only: [flunk: 1]

  alias DurableHandoff.Codec.Encoder

  @doc "What the library's own Elixir code writes."
  @spec encode_plainly(term()) :: binary()
  def encode_plainly(term), do: term |> Encoder.encode_to_iodata!() |> IO.iodata_to_binary()

  @doc "The exception that `fun` raises."
  @spec error((() -> term())) :: Exception.t()
  def error(fun) do
    fun.()
    flunk("nothing was raised")
  rescue
    error in ExUnit.AssertionError -> reraise error, __STACKTRACE__
    error -> error
  end
end
