defmodule DurableHandoff.CodecHelpers do
  @moduledoc "Helpers of the codec's tests."

  import ExUnit.Assertions, only: [flunk: 1]

  alias DurableHandoff.Codec.Encoder

  @doc "The output of the library's own Elixir encoder."
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
