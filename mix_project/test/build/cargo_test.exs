defmodule DurableHandoff.Build.CargoTest do
  # Not async: flags of the compiler are in the environment.
  use ExUnit.Case

  import DurableHandoff.EnvironmentVariables

  alias DurableHandoff.Build.Cargo

  test "on musl RUSTFLAGS keeps the flag that shared libraries need" do
    put_variables(%{"RUSTFLAGS" => "-C target-cpu=native"})
    assert Cargo.environment(nil, true) == [{"RUSTFLAGS", "-C target-cpu=native -C target-feature=-crt-static"}]
    assert Cargo.environment(nil, false) == []
    put_variables(%{"RUSTFLAGS" => "-C target-feature=-crt-static"})
    assert Cargo.environment("/t", true) == [{"CARGO_TARGET_DIR", "/t"}]
    put_variables(%{"RUSTFLAGS" => nil})
    assert Cargo.environment(nil, true) == []
  end

  test "the shared library is found among what cargo reports: other artifacts, other files, a path of Windows" do
    artifact = fn files ->
      ~s({"reason":"compiler-artifact","target":{"crate_types":["cdylib","rlib"]},"filenames":#{files},"executable":null})
    end

    for {messages, file} <- [
          {"noise\n" <> artifact.(~S(["/t/libhandoff_nif.rlib","/t/libhandoff_nif.dylib"])) <> "\n",
           "/t/libhandoff_nif.dylib"},
          {artifact.(~S(["C:\\t\\handoff_nif.dll","C:\\t\\handoff_nif.dll.lib"])), "C:\\t\\handoff_nif.dll"},
          {artifact.(~S(["/t/libstore_nif.so"])), nil},
          {artifact.("[]"), nil},
          {"", nil}
        ] do
      assert Cargo.library_in(messages, "handoff_nif") == file
    end
  end
end
