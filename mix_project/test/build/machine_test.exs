defmodule DurableHandoff.Build.MachineTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Build.Machine

  test "each supported architecture of OTP has a target triple, and no other has one" do
    for {architecture, triple} <- [
          {"x86_64-pc-linux-gnu", "x86_64-unknown-linux-gnu"},
          {"amd64-redhat-linux-gnu", "x86_64-unknown-linux-gnu"},
          {"aarch64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"},
          {"x86_64-alpine-linux-musl", "x86_64-unknown-linux-musl"},
          {"aarch64-linux-musl", "aarch64-unknown-linux-musl"},
          {"aarch64-apple-darwin23.4.0", "aarch64-apple-darwin"},
          {"arm-apple-darwin22.0.0", "aarch64-apple-darwin"},
          {"x86_64-apple-darwin20.6.0", "x86_64-apple-darwin"},
          {"armv7l-unknown-linux-gnueabihf", nil},
          {"riscv64-unknown-linux-gnu", nil},
          {"x86_64-unknown-freebsd14.0", nil},
          {"arm-unknown-linux-gnu", nil},
          {"", nil}
        ] do
      assert Machine.triple(architecture, {:unix, :linux}) == triple, architecture
    end
  end

  test "a library that needs a newer glibc than the machine has is refused, an older one is not" do
    library = <<0x7F, "ELF", 0, "GLIBC_2.2.5", 0, "GLIBC_2.34", 0, "GLIBC_2.9", 0, "GLIBC_PRIVATE", 0, "GLIBC_">>
    assert Machine.needs(library) == {2, 34}
    assert Machine.fits(library, {2, 34}) == :ok
    assert Machine.fits(library, {2, 36}) == :ok
    assert Machine.fits(library, nil) == :ok
    assert {:error, "it needs glibc 2.34 or newer, and this machine has 2.31"} = Machine.fits(library, {2, 31})
  end

  test "a file that is not ELF, or does not need glibc, fits every machine" do
    for library <- ["", "GLIBC_9.99", <<0x7F, "ELF", 0>>], do: assert(Machine.fits(library, {2, 17}) == :ok)
  end
end
