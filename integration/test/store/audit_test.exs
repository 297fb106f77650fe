defmodule Store.AuditTest do
  @moduledoc """
  The audit of a store with the objects of real servers: one without a problem, one with an unused
  reservation, one whose node is dead, and an object that is not a server's.
  """

  use ExUnit.Case, async: true

  alias DurableHandoff.{Codec, Store}
  alias DurableHandoff.Store.Request
  alias DurableServer.Supervisor, as: Host
  alias Elixir.Store.Places
  alias Servers.Counter

  # No node may repair what the audit should find.
  @quiet [discovery_interval_ms: 3_600_000, heartbeat_interval_ms: 3_600_000]

  @variables [
    endpoint: "AWS_ENDPOINT_URL",
    region: "AWS_REGION",
    access_key_id: "AWS_ACCESS_KEY_ID",
    secret_access_key: "AWS_SECRET_ACCESS_KEY"
  ]

  for {where, place} <- [{"a directory", {Places, :directory, []}}, {"S3", {Elixir.Store.Servers, :options, [:s3]}}] do
    @tag place: place
    test "of #{where}: counts objects, names each problem, writes nothing", %{place: place} do
      {module, function, arguments} = place
      options = apply(module, function, arguments)
      {:ok, %{state: store}} = Store.init_backend(options)
      {prefix, [alive, dead]} = run_servers(options)
      {:ok, _etag} = Request.run(store, {:put, prefix <> "broken", "{", :always, :always, false}, [])

      # As if one node had just sent its heartbeat, however long this takes, and the other had been dead for a minute.
      audit = fn more ->
        for {node, age_ms} <- [{alive, 0}, {dead, 60_000}], do: age(store, prefix <> "__nodes/#{node}", age_ms)
        before = objects(store)
        result = audit(options, prefix, more)
        assert objects(store) == before
        result
      end

      assert {table, 4} = audit.([])

      for line <- [
            "3 servers",
            ~r/running +2\n/,
            ~r/stopped_graceful +1\n/,
            ~r/#{alive} +\d+ m?s ago  \n/,
            ~r/#{dead} +\d+ s ago  stale\n/,
            ~r/1: reservations .*\n  #{prefix}reserved  for nobody@nowhere, over since/,
            ~r/1: running on .*\n  #{prefix}orphan  on #{dead}: last heartbeat \d+ s ago/,
            ~r/1: unreadable .*\n  #{prefix}broken  it is not a JSON/
          ] do
        assert table =~ line
      end

      assert {json, 4} = audit.(["--json"])
      report = Codec.decode!(json)
      assert %{"servers" => 3, "by_status" => %{"running" => 2, "stopped_graceful" => 1}} = report
      assert [%{"key" => orphan, "why" => %{"reason" => "stale_heartbeat"}}] = report["orphans"]["first"]
      assert [%{"key" => reserved, "node" => "nobody@nowhere"}] = report["outlived_reservations"]["first"]
      assert [%{"key" => broken}] = report["unreadable"]["first"]
      assert [orphan, reserved, broken] == for(name <- ~w(orphan reserved broken), do: prefix <> name)

      for key <- ~w(orphan reserved broken), do: :ok = Store.delete_object(store, prefix <> key)
      assert {_table, 0} = audit.([])
    end
  end

  test "gets keys from STS for a web identity, from variables or a profile, and says what keeps it from them" do
    home = Temporary.path("home")
    File.mkdir_p!(Path.join(home, ".aws"))
    token = Path.join(home, "token")
    File.write!(token, "a token")
    role = fn name -> "arn:aws:iam::123456789012:role/#{name}" end
    identity = fn name, token -> ["AWS_ROLE_ARN=" <> role.(name), "AWS_WEB_IDENTITY_TOKEN_FILE=" <> token] end
    profile = "[profile audit]\nrole_arn = #{role.("reader")}\nweb_identity_token_file = #{token}\n"
    File.write!(Path.join(home, ".aws/config"), profile)

    for given <- [identity.("reader", token), ["AWS_PROFILE=audit"]] do
      assert {table, 4} = audit_with_sts(home, given)
      assert table =~ ~r/1: unreadable .*\n  broken  it is not a JSON/
    end

    # Keys from STS for a role that may not read; no keys, because the token is missing; and keys that are not
    # from STS.
    for {given, code} <- [
          {identity.("stranger", token), "AccessDenied"},
          {identity.("reader", token <> "_missing"), "UnusableCredentials"},
          {["AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test"], "InvalidAccessKeyId"}
        ] do
      assert {error, 1} = audit_with_sts(home, given)
      assert error =~ "code " <> code
    end
  end

  # Output and exit status of an audit of the store with these options, which become S3's own variables.
  defp audit(options, prefix, more) do
    config = for {name, value} <- options[:config] || [], do: {Keyword.fetch!(@variables, name), value}
    System.cmd(RustNode.program(), ["audit", "--store", options[:url], "--prefix", prefix | more], env: config)
  end

  # Only these environment variables are set.
  defp audit_with_sts(home, given) do
    endpoint = Elixir.Store.Servers.endpoint(:sts)
    trust = ["HOME=" <> home, "SSL_CERT_FILE=" <> Elixir.Store.Servers.sts_certificate(), "AWS_REGION=us-east-1"]
    at = ["AWS_ENDPOINT_URL=" <> endpoint, "AWS_ENDPOINT_URL_STS=" <> endpoint]
    arguments = ["-i" | trust ++ at ++ given] ++ [RustNode.program(), "audit", "--store", "s3://audited/x"]
    System.cmd("env", arguments, stderr_to_stdout: true)
  end

  # Three servers: one stays, one is stopped for a move that never happens, one loses its node.
  defp run_servers(options) do
    [alive, dead] = Cluster.start_nodes(2)
    [name: sup, prefix: prefix] = Cluster.unique_options()
    settings = [heartbeat_staleness_threshold_ms: 7_200_000, initial_discovery_delay_ms: 3_600_000]
    opts = [name: sup, prefix: prefix] ++ settings
    Cluster.start_hosts([alive, dead], opts ++ [backend: {Store, options ++ @quiet}])

    start = fn node, key ->
      child = {Counter, key: key, initial_state: %{count: 1}}
      {:ok, {pid, _meta}} = Cluster.call(node, Host, :start_child, [sup, child, [local_only: true, timeout: 60_000]])
      pid
    end

    start.(alive, "in_order")
    start.(dead, "orphan")
    reserved = start.(alive, "reserved")
    down = Process.monitor(reserved)
    :ok = Cluster.ask(reserved, {:durable, {:stop_for_rehome, "nobody@nowhere", 1, :test}})
    assert_receive {:DOWN, ^down, :process, _pid, _reason}, 60_000
    Cluster.kill(dead)
    {prefix, [alive, dead]}
  end

  defp age(store, key, age_ms) do
    sent = %{"last_heartbeat_at" => System.system_time(:millisecond) - age_ms}
    {:ok, _object} = Store.update_object(store, key, fn %{body: heartbeat} -> {:ok, Map.merge(heartbeat, sent)} end)
  end

  defp objects(store), do: store |> Store.list_all_objects_stream("") |> Enum.sort()
end
