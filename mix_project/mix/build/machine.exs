defmodule DurableHandoff.Build.Machine do
  @moduledoc """
  The machine that a library is built for: its target triple as Rust names it, and its C library.

  A library that was built with a newer glibc does not load with an older one, so the version is part of what
  identifies a build.
  """

  @type version :: {major :: non_neg_integer(), minor :: non_neg_integer()}

  @doc "The target triple of this VM, or nil where precompiled libraries cannot exist."
  @spec triple(String.t(), {atom(), atom()}) :: String.t() | nil
  def triple(architecture \\ architecture(), os \\ :os.type())

  def triple(_architecture, {:win32, _name}) do
    # On Windows the VM names no architecture.
    if System.get_env("PROCESSOR_ARCHITECTURE") in ["AMD64", nil] and :erlang.system_info(:wordsize) == 8,
      do: "x86_64-pc-windows-msvc"
  end

  def triple(architecture, {:unix, _name}) do
    with [cpu | system] <- String.split(architecture, "-"),
         cpu when is_binary(cpu) <- cpu(cpu, system),
         system when is_binary(system) <- system(system),
         do: "#{cpu}-#{system}",
         else: (_unknown -> nil)
  end

  defp cpu(name, _system) when name in ["x86_64", "amd64"], do: "x86_64"
  defp cpu(name, _system) when name in ["aarch64", "arm64"], do: "aarch64"
  defp cpu("arm", ["apple" | _rest]), do: "aarch64"
  defp cpu(_other, _system), do: nil

  defp system(["apple", "darwin" <> _version]), do: "apple-darwin"
  defp system([_vendor, "linux", "gnu"]), do: "unknown-linux-gnu"
  defp system([_vendor, "linux", "musl"]), do: "unknown-linux-musl"
  defp system(["linux", libc]), do: system(["unknown", "linux", libc])
  defp system(_other), do: nil

  @doc "Identifies the machines on which a library that is built here runs. Contains no spaces."
  @spec id() :: String.t()
  def id do
    case glibc() do
      nil -> kind()
      version -> "#{kind()}+glibc-#{text(version)}"
    end
  end

  @doc "The same without the version of glibc."
  @spec kind() :: String.t()
  def kind, do: triple() || architecture()

  @doc "The version of this machine's glibc; nil if it has another C library or cannot be found out."
  @spec glibc() :: version() | nil
  def glibc do
    with getconf when is_binary(getconf) <- System.find_executable("getconf"),
         {"glibc " <> version, 0} <- System.cmd(getconf, ["GNU_LIBC_VERSION"], stderr_to_stdout: true),
         do: version(version),
         else: (_other -> nil)
  end

  @doc """
  Whether this machine can load a library: `:ok`, or a sentence that says why not. Only the version of glibc
  is compared.
  """
  @spec fits(binary(), version() | nil) :: :ok | {:error, String.t()}
  def fits(library, glibc \\ glibc()) do
    case needs(library) do
      needs when needs == nil or glibc == nil or needs <= glibc -> :ok
      needs -> {:error, "it needs glibc #{text(needs)} or newer, and this machine has #{text(glibc)}"}
    end
  end

  @doc "The oldest glibc with which an ELF library loads; nil if it is not an ELF file or needs no glibc."
  @spec needs(binary()) :: version() | nil
  def needs(<<0x7F, "ELF", _rest::binary>> = library) do
    library
    |> :binary.matches("GLIBC_")
    |> Enum.map(fn {at, length} ->
      library |> binary_part(at + length, min(8, byte_size(library) - at - length)) |> version()
    end)
    |> Enum.reject(&is_nil/1)
    |> Enum.max(fn -> nil end)
  end

  def needs(_other), do: nil

  @doc "A version as text."
  @spec text(version()) :: String.t()
  def text({major, minor}), do: "#{major}.#{minor}"

  @doc "The version at the start of a text; nil if there is none."
  @spec version(binary()) :: version() | nil
  def version(text) do
    with [_all, major, minor] <- Regex.run(~r/\A(\d{1,4})\.(\d{1,4})/, text),
         do: {String.to_integer(major), String.to_integer(minor)},
         else: (nil -> nil)
  end

  @doc """
  Starts an OTP application. From Elixir 1.15 on Mix removes those from the code path that no dependency
  names.
  """
  @spec start_otp!(atom()) :: :ok
  def start_otp!(application) do
    if function_exported?(Mix, :ensure_application!, 1), do: apply(Mix, :ensure_application!, [application])
    {:ok, _apps} = Application.ensure_all_started(application)
    :ok
  end

  @doc "Whether the C library is musl."
  @spec musl?() :: boolean()
  def musl?, do: String.ends_with?(architecture(), "musl")

  defp architecture, do: List.to_string(:erlang.system_info(:system_architecture))
end
