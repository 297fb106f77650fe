defmodule HandoffBench.Options do
  @moduledoc """
  The command line of a bench. Wrong options are reported before anything is measured, so that no result of minutes is
  lost because a flag is misspelt or a file cannot be written.
  """

  @doc """
  The options of `argv` over `defaults`, a map with a value for every option that may be omitted. Every bench has
  `:json`.

      iex> HandoffBench.Options.parse!(["--servers", "7"], [servers: :integer], %{servers: 1, rounds: 2})
      %{servers: 7, rounds: 2, json: nil}
  """
  @spec parse!([String.t()], keyword(), map()) :: map()
  def parse!(argv, strict, defaults) do
    case OptionParser.parse(argv, strict: [json: :string] ++ strict) do
      {options, [], []} ->
        options = Enum.into(options, Map.put_new(defaults, :json, nil))
        writable!(options.json)
        options

      {_options, _arguments, [{flag, nil} | _others]} ->
        Mix.raise("#{flag} is not a flag of this bench, or lacks its value; it takes #{takes(strict)}")

      {_options, _arguments, [{flag, value} | _others]} ->
        Mix.raise("#{flag} does not take #{inspect(value)}")

      {_options, [argument | _others], []} ->
        Mix.raise("this bench takes flags only, not #{inspect(argument)}; it takes #{takes(strict)}")
    end
  end

  @doc "Writes figures, and the versions of Elixir and OTP, to the file that `--json` names, if it names one."
  @spec write_json(map(), map()) :: :ok
  def write_json(%{json: nil}, _figures), do: :ok

  def write_json(%{json: path}, figures) do
    versions = %{elixir: System.version(), otp: System.otp_release()}
    File.write!(path, DurableHandoff.Codec.encode!(Map.merge(versions, figures)))
  end

  defp takes(strict) do
    flags = for {name, _type} <- [json: :string] ++ strict, do: OptionParser.to_argv([{name, true}]) |> hd()
    Enum.join(flags, ", ")
  end

  defp writable!(nil), do: :ok

  defp writable!(path) do
    cond do
      File.dir?(path) -> Mix.raise("--json #{path} is a directory; a file name is needed")
      not File.dir?(Path.dirname(path)) -> Mix.raise("--json: the directory #{Path.dirname(path)} does not exist")
      true -> :ok
    end
  end
end
