defmodule DurableHandoff.GenerationTest do
  # Not async: it changes the environment.
  use ExUnit.Case

  alias DurableHandoff.{EnvironmentVariables, Options}

  setup context do
    EnvironmentVariables.put_variables(%{"RELEASE_VSN" => context[:release]})
  end

  @tag release: "1.2.3"
  test "the default is the release's version" do
    assert Options.new!(true).generation == "1.2.3"
  end

  @tag release: "1.2.3"
  test "an explicit generation takes precedence, also nil" do
    assert Options.new!(generation: "blue").generation == "blue"
    assert Options.new!(generation: nil).generation == nil
  end

  test "outside of a release and of an application's tree it is nil" do
    assert Options.new!(true).generation == nil
  end

  test "outside of a release it is the version of the application whose tree the supervisor is in" do
    defmodule App do
      use Application

      @impl true
      def start(_type, test) do
        send(test, {:generation, Options.new!(true).generation})
        Supervisor.start_link([], strategy: :one_for_one)
      end
    end

    properties = [vsn: ~c"4.5.6", applications: [:kernel, :stdlib], mod: {App, self()}]
    :ok = :application.load({:application, :generation_test_app, properties})
    :ok = Application.start(:generation_test_app)
    on_exit(fn -> Application.stop(:generation_test_app) end)
    assert_receive {:generation, "4.5.6"}
  end
end
