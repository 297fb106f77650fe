defmodule VerifiedTest do
  @moduledoc "VERIFIED.md says what the files it is made from say."

  use ExUnit.Case, async: true

  test "VERIFIED.md matches the recorded results and answers" do
    assert Verified.committed_page() == Verified.page()
  end
end
