defmodule DurableHandoff.StoppingTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.{LogEvents, Stopping}

  @tag :capture_log
  test "a message that the process does not know is logged, and does not end the process" do
    handle = fn -> Stopping.handle_info(:odd, nil) end
    assert {{:noreply, nil}, [{:warning, :unexpected_message, %{message: :odd}}]} = LogEvents.collect(handle)
  end
end
