defmodule Temporary do
  @moduledoc """
  Files and directories of tests.

  All are below one directory, which `remove/0` removes after the last test of a run, and not with their test: what a
  test starts on its nodes ends after the test's own `on_exit` functions, and may write until then.
  """

  @doc "A path that nothing else uses. Its directory exists, the path does not."
  @spec path(String.t()) :: Path.t()
  def path(name) do
    File.mkdir_p!(directory())
    Path.join(directory(), Cluster.unique(name))
  end

  @doc "Removes everything, as far as possible."
  @spec remove() :: :ok
  def remove do
    File.rm_rf(directory())
    :ok
  end

  defp directory, do: Path.join(System.tmp_dir!(), "durable_handoff_tests_#{System.pid()}")
end
