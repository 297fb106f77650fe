defmodule LastWords do
  @moduledoc """
  A child that, when it is stopped, makes some calls and sends the test what they returned: `{:last_words,
  [result]}`. It shows what still runs at that moment.
  """

  use GenServer

  @type option :: {:tell, pid()} | {:calls, [{module(), atom(), [term()]}]}

  @spec start_link([option()]) :: GenServer.on_start()
  def start_link(opts), do: GenServer.start_link(__MODULE__, opts)

  @impl true
  def init(opts) do
    Process.flag(:trap_exit, true)
    {:ok, opts}
  end

  @impl true
  def terminate(_reason, opts) do
    results = for {module, function, args} <- opts[:calls], do: apply(module, function, args)
    send(opts[:tell], {:last_words, results})
  end
end
