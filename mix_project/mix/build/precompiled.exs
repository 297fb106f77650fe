defmodule DurableHandoff.Build.Precompiled do
  @moduledoc """
  Precompiled libraries: one archive for each library and machine. The published package has their checksums.

  Guarantee: no byte of an archive is used unless its SHA-256 is the one in the package.
  """

  alias DurableHandoff.Build.{Download, Machine}

  # The version of the NIF interface, not of OTP: every OTP from 22 on can load the library.
  @nif "2.15"
  @checksums "checksum-durable_handoff.exs"
  @bytes 64 * 1024 * 1024

  @type archive :: %{name: String.t(), sha256: String.t()}

  @doc "The file with the checksums, by its name."
  @spec checksums_file() :: String.t()
  def checksums_file, do: @checksums

  @doc """
  The name of the archive of a library.
  Such as `libstore_nif-v0.1.0-nif-2.15-aarch64-apple-darwin.so.tar.gz`.
  """
  @spec name(String.t(), String.t(), String.t()) :: String.t()
  def name(library, version, triple) do
    {prefix, type} = if triple =~ "windows", do: {"", "dll"}, else: {"lib", "so"}
    "#{prefix}#{library}-v#{version}-nif-#{@nif}-#{triple}.#{type}.tar.gz"
  end

  @doc """
  The archive of `library` for this machine; nil if this project has no checksum of it or
  `DURABLE_HANDOFF_BUILD` is set.
  """
  @spec archive(String.t(), String.t() | nil) :: archive() | nil
  def archive(library, triple \\ Machine.triple()) do
    name = triple && name(library, Mix.Project.config()[:version], triple)

    with false <- System.get_env("DURABLE_HANDOFF_BUILD", "") in ["1", "true"],
         %{^name => "sha256:" <> sha256} <- checksums(File.cwd!()),
         do: %{name: name, sha256: sha256},
         else: (_none -> nil)
  end

  @doc "The checksums in a directory, by the name of the archive."
  @spec checksums(Path.t()) :: %{String.t() => String.t()}
  def checksums(directory) do
    path = Path.join(directory, @checksums)

    with true <- File.regular?(path),
         {checksums, _binding} <- Code.eval_file(path),
         true <- is_map(checksums) or Mix.raise("#{path} holds no map of checksums."),
         do: checksums,
         else: (false -> %{})
  end

  @doc """
  The library in the archive, from the cache or downloaded into it.

  `{:error, sentence}` when it cannot be downloaded or does not run on this machine. Raises `Mix.Error` when
  its checksum is wrong.
  """
  @spec fetch(archive()) :: {:ok, binary()} | {:error, String.t()}
  def fetch(archive) do
    with {:ok, bytes} <- bytes(archive),
         {:ok, library} <- unpack(archive.name, bytes),
         :ok <- Machine.fits(library) do
      {:ok, library}
    else
      {:error, reason} -> {:error, "#{archive.name}: #{reason}"}
    end
  end

  defp bytes(%{name: name} = archive) do
    path = Path.join(cache(), name)

    case File.read(path) do
      {:ok, bytes} ->
        check!(archive, bytes, path, "Remove that file and compile again.")

      {:error, _none} ->
        url = "#{base_url()}/#{name}"
        Mix.shell().info("Downloading #{url}")

        with {:ok, bytes} <- Download.get(url, max_bytes: @bytes) do
          {:ok, _bytes} = check!(archive, bytes, url, "It is not the library that was published: do not use it.")
          keep(path, bytes)
          {:ok, bytes}
        end
    end
  end

  defp check!(%{sha256: expected}, bytes, where, what_to_do) do
    case sha256(bytes) do
      ^expected -> {:ok, bytes}
      found -> Mix.raise("#{where} has the SHA-256 #{found}, but the package says #{expected}.\n#{what_to_do}")
    end
  end

  defp sha256(bytes) do
    Machine.start_otp!(:crypto)
    Base.encode16(:crypto.hash(:sha256, bytes), case: :lower)
  end

  # If the cache cannot be written, the only effect is another download.
  defp keep(path, bytes) do
    temporary = "#{path}.#{System.pid()}.tmp"

    with :ok <- File.mkdir_p(Path.dirname(path)),
         :ok <- File.write(temporary, bytes),
         :ok <- File.rename(temporary, path) do
      :ok
    else
      {:error, reason} ->
        File.rm(temporary)
        Mix.shell().info("#{path} could not be written (#{:file.format_error(reason)}): the next build downloads again")
    end
  end

  defp unpack(name, bytes) do
    case :erl_tar.extract({:binary, bytes}, [:compressed, :memory]) do
      {:ok, [{_name, ""}]} -> {:error, "the library in #{name} is empty"}
      {:ok, [{_name, library}]} -> {:ok, library}
      {:ok, files} -> {:error, "it holds #{length(files)} files instead of one"}
      {:error, reason} -> {:error, "it cannot be unpacked: #{inspect(reason)}"}
    end
  end

  @doc "Where archives are kept: `DURABLE_HANDOFF_CACHE`, or a directory in the user's cache."
  @spec cache() :: Path.t()
  def cache do
    case System.get_env("DURABLE_HANDOFF_CACHE", "") do
      "" -> List.to_string(:filename.basedir(:user_cache, ~c"durable_handoff"))
      directory -> Path.expand(directory)
    end
  end

  defp base_url do
    case System.get_env("DURABLE_HANDOFF_URL", "") do
      "" -> "#{Mix.Project.config()[:source_url]}/releases/download/v#{Mix.Project.config()[:version]}"
      url -> String.trim_trailing(url, "/")
    end
  end

  @doc "Packs a library. Returns the archive's name."
  @spec pack!(Path.t(), String.t(), Path.t(), String.t()) :: String.t()
  def pack!(file, library, output, triple) do
    name = name(library, Mix.Project.config()[:version], triple)
    File.mkdir_p!(output)
    inside = name |> String.trim_trailing(".tar.gz") |> String.to_charlist()
    target = output |> Path.join(name) |> String.to_charlist()
    :ok = :erl_tar.create(target, [{inside, File.read!(file)}], [:compressed])
    name
  end

  @doc "Writes the checksums of all archives of this version in a directory. Returns the names of the archives."
  @spec write_checksums!(Path.t()) :: [String.t()]
  def write_checksums!(directory) do
    names =
      directory
      |> Path.join("*-v#{Mix.Project.config()[:version]}-nif-#{@nif}-*.tar.gz")
      |> Path.wildcard()
      |> Enum.map(&Path.basename/1)

    lines =
      for name <- Enum.sort(names) do
        ~s(  "#{name}" => "sha256:#{sha256(File.read!(Path.join(directory, name)))}",\n)
      end

    File.write!(Path.join(directory, @checksums), ["%{\n", lines, "}\n"])
    names
  end
end
