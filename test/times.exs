defmodule HandoffTimes do
  @moduledoc """
  An ExUnit formatter that adds a line to the file `$HANDOFF_TIMES` after each test: microseconds, a tab, the test's module and name.
  Several processes may write to one file.
  """

  use GenServer

  @impl true
  def init(_opts), do: File.open(System.fetch_env!("HANDOFF_TIMES"), [:append, :raw])

  @impl true
  def handle_cast({:test_finished, %ExUnit.Test{} = test}, file) do
    :ok = :file.write(file, "#{test.time}\t#{inspect(test.module)}: #{test.name}\n")
    {:noreply, file}
  end

  def handle_cast(_event, file), do: {:noreply, file}
end
