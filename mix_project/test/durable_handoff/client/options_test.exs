defmodule DurableHandoff.Client.OptionsTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Client.Options

  test "valid options, in any order" do
    assert Options.read!([retry: :never, start: {Room, %{}}, timeout: :infinity], :call) ==
             %Options{retry: :never, start: {Room, %{}}, timeout: :infinity}

    assert Options.read!([start: nil, timeout: 0], :await) == %Options{start: nil, timeout: 0}
    assert Options.read!([], :cast) == %Options{timeout: 5_000, retry: :unhandled, start: nil}
  end

  test "every invalid option in one error, with the valid values" do
    error = assert_raise ArgumentError, fn -> Options.read!([timeout: "1", retry: :ever], :call) end
    assert error.message =~ ~s(:timeout got "1", expected milliseconds up to a day)
    assert error.message =~ ":retry got :ever, expected one of :unhandled, :never, :always, did you mean :never?"
  end
end
