defmodule DurableHandoff.Host.VersionTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Host.Version

  defp host(version, lacks \\ []),
    do: %{version: version, exported?: fn _module, function, arity -> {function, arity} not in lacks end}

  test "a version without reservations is refused at start, with what to do" do
    for version <- ["0.1.1", "0.1.2", "0.0.9"] do
      assert_raise ArgumentError, ~r/#{version}.*mix deps.update durable_server/s, fn ->
        Version.check!(host(version))
      end
    end
  end

  test "a package without rehome_child is refused whatever its version, and the function is named" do
    for version <- ["0.1.4", "0.2.0", nil, "odd"] do
      assert_raise ArgumentError, ~r/DurableServer.Supervisor.rehome_child\/3/, fn ->
        Version.check!(host(version, rehome_child: 3))
      end
    end
  end

  test "each version since 0.1.3 is accepted, also an unknown one" do
    for version <- ["0.1.3", "0.1.4", "0.1.5-dev", "0.1.8", "1.0.0", nil],
        do: assert(Version.check!(host(version)) == :ok)
  end

  test "stop_discovery has no timeout before 0.1.5" do
    assert Version.check!(host("0.1.4", stop_discovery: 2)) == :ok

    assert_raise ArgumentError, ~r/stop_discovery/, fn ->
      Version.check!(host("0.1.4", stop_discovery: 2, stop_discovery: 1))
    end
  end

  test "the log line at start says whether the version was verified, and which features it lacks" do
    assert {:info, verified} = Version.describe(host("0.1.3"))
    assert verified =~ "0.1.3 (verified)"
    assert {:info, other} = Version.describe(host("9.9.9"))
    assert other =~ "9.9.9 (not verified"
    assert {:info, unknown} = Version.describe(host(nil))
    assert unknown =~ "not verified"
    assert {:warning, lacking} = Version.describe(host("0.1.4", current_capacity: 1))
    assert lacking =~ "DurableServer.Supervisor.current_capacity/1"
    # A server that cannot be asked counts as permanent.
    assert {:warning, lacking} = Version.describe(host("0.1.4", get_server_info: 2))
    assert lacking =~ "DurableServer.Supervisor.get_server_info/2: `eligible: :permanent` moves every server"
  end

  test "without DurableServer only the check raises" do
    assert {:warning, _text} = Version.describe()
    assert_raise ArgumentError, fn -> Version.check!() end
  end
end
