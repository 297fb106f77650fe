defmodule Cluster.Application do
  @moduledoc """
  An OTP application defined at run time, so that the children of a test are shut down in order with their
  node.
  """

  use Application

  @doc "Starts `children` as application `app` on this node."
  @spec launch(atom(), [Supervisor.child_spec() | {module(), term()} | module()]) :: {:ok, atom()} | {:error, term()}
  def launch(app, children) do
    properties = [
      description: ~c"children of a test",
      vsn: ~c"0",
      modules: [],
      registered: [],
      applications: [:kernel, :stdlib, :elixir, :logger],
      mod: {__MODULE__, children}
    ]

    with :ok <- :application.load({:application, app, properties}),
         :ok <- Application.start(app),
         do: {:ok, app}
  end

  @impl true
  def start(_type, children), do: Supervisor.start_link(children, strategy: :one_for_one)
end
