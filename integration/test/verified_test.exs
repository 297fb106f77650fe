defmodule VerifiedTest do
  @moduledoc "VERIFIED.md says what the files it is made from say."

  use ExUnit.Case, async: true

  test "the page is as the recorded results and answers make it" do
    assert Verified.committed_page() == Verified.page()
  end
end
