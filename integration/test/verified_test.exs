defmodule VerifiedTest do
  @moduledoc "VERIFIED.md matches the files from which it is generated."

  use ExUnit.Case, async: true

  test "VERIFIED.md matches the recorded results and answers" do
    assert Verified.committed_page() == Verified.page()
  end
end
