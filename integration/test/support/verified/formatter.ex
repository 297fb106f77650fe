defmodule Verified.Formatter do
  @moduledoc """
  Records the result of every suite that has finished, for the version in `HANDOFF_VERIFY`. A suite is a
  folder of `test`.
  """

  use GenServer

  @impl true
  def init(_config), do: {:ok, %{version: System.fetch_env!("HANDOFF_VERIFY"), tests: []}}

  @impl true
  def handle_cast({:test_finished, test}, state), do: {:noreply, %{state | tests: [test | state.tests]}}

  def handle_cast({:suite_finished, _times}, state) do
    results = for {suite, tests} <- Enum.group_by(state.tests, &suite/1), do: result(suite, tests)
    Verified.note(state.version, results)
    {:noreply, state}
  end

  def handle_cast(_other, state), do: {:noreply, state}

  defp suite(%{tags: %{file: file}}) do
    case file |> Path.relative_to(Path.expand("../..", __DIR__)) |> Path.split() do
      [_file] -> "others"
      [folder | _file] -> folder
    end
  end

  # A failure in setup_all counts as a failure of each test of the module.
  defp result(suite, tests) do
    %{
      suite: suite,
      date: Date.to_iso8601(Date.utc_today()),
      passed: Enum.count(tests, &(&1.state == nil)),
      failed: for(%{state: {kind, _reason}} = test <- tests, kind in [:failed, :invalid], do: name(test)),
      excluded: for(%{state: {:excluded, _}} = test <- tests, why = why(test.tags), do: {name(test), why})
    }
  end

  defp why(tags), do: tags[:stand_in_only] || tags[:after_0_1_4]

  defp name(test), do: "#{inspect(test.module)}, #{test.name |> Atom.to_string() |> String.replace_prefix("test ", "")}"
end
