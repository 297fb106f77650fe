defmodule DurableHandoff.OwnDirectory do
  @moduledoc """
  A directory for each test, as `tmp_dir` in its context, gone after it.

  ExUnit's own `@tag :tmp_dir` uses the same directory in every run and empties it first, so two simultaneous
  runs in one checkout, for example on two versions of Erlang, would disturb each other.
  """

  @doc "To be named in `setup`."
  @spec own_directory(map()) :: {:ok, tmp_dir: Path.t()}
  def own_directory(_context) do
    name = "durable_handoff_#{System.pid()}_#{System.unique_integer([:positive])}"
    path = Path.join(System.tmp_dir!(), name)
    File.mkdir_p!(path)
    ExUnit.Callbacks.on_exit(fn -> File.rm_rf!(path) end)
    {:ok, tmp_dir: path}
  end
end
