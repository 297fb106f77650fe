defmodule Store.RefusedTest do
  @moduledoc """
  Stores that cannot guarantee one owner for each key are refused at the start: servers with deliberate flaws,
  and real ones.
  """

  use ExUnit.Case, async: true

  alias DurableHandoff.Store, as: Backend
  alias DurableServer.Supervisor, as: Host
  alias Elixir.Servers.Counter
  alias Store.{Conformance, Proxy, Servers}

  # The time limit of races on servers that share a busy machine.
  @moduletag timeout: 600_000

  # Each flaw with the expected reason of the refusal.
  @wrong [
    {"ignores-conditions", :conditions_ignored},
    {"ignores-if-match", :conditions_ignored},
    {"ignores-if-none-match", :conditions_ignored},
    {"not-atomic", :conditions_not_atomic},
    {"refuses-conditions", :conditions_refused},
    {"weak-etags", :weak_etags},
    {"stale-reads", :stale_reads},
    {"read-only", :credentials_read_only},
    {"no-bucket", :no_bucket},
    {"clock-skewed", :denied},
    {"web-page", :not_a_store}
  ]

  for {flaw, reason} <- @wrong do
    test "an S3 server with the flaw #{flaw}: refused, with the cause and what to do" do
      store = wrong([unquote(flaw)])
      assert {:error, {unquote(reason), facts}} = Backend.ensure_ready(store)
      assert said(unquote(reason), facts)
    end
  end

  for flaw <- ["etags-without-quotes-only", "etags-with-quotes-only"] do
    test "an S3 server with the flaw #{flaw}: supported in its own form, and one writer wins" do
      store = wrong([unquote(flaw)])
      assert :ok = Backend.ensure_ready(store)
      assert winners(store, 10) == [1]
    end
  end

  # A server that checks signatures refuses these requests, because the removed headers are signed.
  test "a proxy that strips conditions: refused" do
    proxy = start_supervised!({Proxy, {:s3, []}})
    Proxy.rules(proxy, [%{strip: ["if-match", "if-none-match"]}])
    {:ok, %{state: store}} = Backend.init_backend(url: "s3://handoff/x", config: config(proxy))
    assert {:error, {:conditions_ignored, _facts}} = Backend.ensure_ready(store)
  end

  # The expected result depends on the server: Ceph applies several racing writes in a versioned bucket,
  # others do not.
  for kind <- [:s3, :ministack], bucket <- ["handoff", "versioned"] do
    test "#{kind}, bucket #{bucket}: ready if one writer wins, refused if several do" do
      options = Servers.options(unquote(kind), url: "s3://#{unquote(bucket)}/#{Cluster.unique("t")}")
      {:ok, %{state: store}} = Backend.init_backend(options)
      # On Ceph only a few of many races have several winners.
      rounds = if Servers.s3_server() == "ceph", do: 100, else: 20
      one_winner? = winners(store, rounds) == [1]

      case Backend.ensure_ready(store) do
        :ok -> assert one_winner?
        {:error, {:conditions_not_atomic, _facts}} -> refute one_winner?
      end

      ceph? = unquote(kind) == :s3 and Servers.s3_server() == "ceph"
      assert one_winner? == not (ceph? and unquote(bucket) == "versioned")
    end
  end

  describe "two VMs that do not know each other, on a store without conditions," do
    setup do
      [a, b] = Cluster.start_nodes(2)
      Cluster.disconnect(a, b)
      proxy = start_supervised!({Proxy, {:s3, ["ignores-conditions"]}})
      {:ok, a: a, b: b, proxy: proxy, config: config(proxy)}
    end

    test "are both refused before they start a server", %{a: a, b: b, config: config} do
      for node <- [a, b] do
        assert {:error, reason} = start(node, Cluster.unique_options(), url: "s3://handoff/x", config: config)
        assert inspect(reason, limit: :infinity) =~ "conditions_ignored"
        assert inspect(reason, limit: :infinity, printable_limit: :infinity) =~ "two nodes could run the same"
      end
    end

    test "both run the same server when the proof is switched off", %{a: a, b: b, config: config} = context do
      options = Cluster.unique_options()
      store = [url: "s3://handoff/x", config: config, conditional_writes: :assume, read_your_writes: false]

      for node <- [a, b] do
        {:ok, _app} = start(node, options, store)
        Cluster.wait_until(fn -> Cluster.call(node, Host, :ready?, [options[:name]]) end)
      end

      # Both have read the store and found no owner before one of them claims.
      Proxy.rules(context.proxy, [%{on: [:claim], key: "*/k", hold: true}])
      child = {Counter, key: "k", initial_state: %{}}
      starts = for node <- [a, b], do: Task.async(fn -> start_server(node, options[:name], child) end)
      Cluster.wait_until(fn -> Proxy.counts(context.proxy).held == 2 end)
      Proxy.release(context.proxy, 2)
      assert [{:ok, {one, _}}, {:ok, {other, _}}] = Task.await_many(starts, 60_000)
      assert {node(one), node(other)} == {a, b}
      for {node, pid} <- [{a, one}, {b, other}], do: assert(Cluster.call(node, Process, :alive?, [pid]))
    end
  end

  defp start_server(node, sup, child),
    do: Cluster.call(node, Host, :start_child, [sup, child, [local_only: true, timeout: 60_000]])

  defp start(node, options, store), do: Cluster.start_children(node, [{Host, options ++ [backend: {Backend, store}]}])

  defp wrong(flaws) do
    proxy = start_supervised!({Proxy, {:s3, flaws}})
    {:ok, %{state: store}} = Backend.init_backend(url: "s3://handoff/#{Cluster.unique("t")}", config: config(proxy))
    store
  end

  defp config(proxy), do: Servers.config(:s3, Proxy.endpoint(proxy))

  # How many of 16 writers win, in rounds of racing claims and updates: the distinct numbers in ascending
  # order.
  defp winners(store, rounds) do
    for round <- 1..rounds, uniq: true do
      key = "race/#{round}"
      claims = Conformance.race(16, &Backend.try_claim(store, key, %{"n" => &1}))
      {:ok, %{etag: etag}} = Backend.get_object(store, key, consistent: true)
      updates = Conformance.race(16, &Backend.put_object(store, key, %{"n" => -&1}, etag: etag))
      Enum.max([won(claims), won(updates)])
    end
    |> Enum.sort()
  end

  defp won(answers), do: Enum.count(answers, &match?({:ok, _answer}, &1))

  defp said(:no_bucket, facts), do: facts.bucket == "handoff"
  defp said(:denied, facts), do: facts.reason =~ "clock"
  defp said(:not_a_store, facts), do: facts.status == 200
  defp said(_unfit, facts), do: String.length(facts.problem) > 60
end
