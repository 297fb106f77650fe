defmodule Store.FaultsTest do
  @moduledoc """
  Further faults between a store and its server, besides those of `Store.ServerConformance`, on S3 through a
  proxy.
  """

  use ExUnit.Case, async: true

  alias DurableHandoff.Store, as: Backend
  alias DurableHandoff.Store.{ListingError, Native, Request}
  alias Store.{Proxy, Servers}

  @slow_down {:answer, 503, [{"retry-after", "0"}], "<Error><Code>SlowDown</Code></Error>"}
  @wrong_key {:answer, 403, [], "<Error><Code>InvalidAccessKeyId</Code><AWSAccessKeyId>test</AWSAccessKeyId></Error>"}

  setup do
    {:ok, proxy} = Proxy.start_link(Servers.endpoint(:s3))
    {:ok, proxy: proxy, state: open(proxy)}
  end

  defp open(proxy, opts \\ []) do
    options = Servers.options(:s3, [config: [endpoint: Proxy.endpoint(proxy)]] ++ opts)
    {:ok, %{state: state}} = Backend.init_backend(options)
    state
  end

  defp owned(n), do: Store.ServerConformance.owned(n)

  defp methods(proxy), do: for(%{method: method} <- Proxy.requests(proxy), do: method)

  test "a claim arrives twice: success if it names its owner, else a lost race", %{state: state} do
    {:ok, {:claimed, _}} = Backend.try_claim(state, "state", owned(1))
    assert {:ok, {:claimed, _}} = Backend.try_claim(state, "state", owned(1))
    {:ok, {:claimed, etag}} = Backend.try_claim(state, "map", %{"n" => 1})
    assert {:error, :already_claimed} = Backend.try_claim(state, "map", %{"n" => 1})
    assert {:ok, %{etag: ^etag}} = Backend.get_object(state, "map", consistent: true)
  end

  test "a claim without an owner: a refusal is checked by a read only after a lost response", %{
    proxy: proxy,
    state: state
  } do
    Proxy.plan(proxy, [:lose_answer])
    assert {:ok, {:claimed, etag}} = Backend.try_claim(state, "map", %{"n" => 1})
    assert {:ok, %{etag: ^etag}} = Backend.get_object(state, "map", consistent: true)
  end

  test "Retry-After: nothing is sent earlier, and the caller's timeout holds", %{proxy: proxy, state: state} do
    Proxy.plan(proxy, [{:answer, 503, [{"retry-after", "3600"}], ""}])
    assert {:error, :timeout} = Backend.get_object(state, "k", timeout: 3_000)
    assert ["GET"] = methods(proxy)
  end

  test "a server error, then success", %{proxy: proxy, state: state} do
    Proxy.plan(proxy, [{:answer, 500, [], "<Error><Code>InternalError</Code></Error>"}, {:answer, 502, [], ""}])
    assert {:ok, _} = Backend.put_object(state, "k", %{"n" => 1}, [])
    Proxy.plan(proxy, [{:answer, 500, [], "<Error><Code>InternalError</Code></Error>"}])
    assert {:error, {:server, %{status: 500, code: "InternalError"}}} = Backend.get_object(state, "k2", max_retries: 0)
    Proxy.plan(proxy, [{:answer, 501, [], "<Error><Code>NotImplemented</Code></Error>"}])
    assert {:error, {:unsupported, %{status: 501}}} = Backend.put_object(state, "k", %{"n" => 2})
  end

  test "a conflict with a request in progress is tried again", %{proxy: proxy, state: state} do
    {:ok, %{etag: etag}} = Backend.put_object(state, "k", owned(1), [])
    Proxy.plan(proxy, [{:answer, 409, [], "<Error><Code>ConditionalRequestConflict</Code></Error>"}])
    assert {:ok, _} = Backend.put_object(state, "k", owned(2), etag: etag)
  end

  describe "no answer" do
    test "a hanging request is sent again within the timeout", %{proxy: proxy} do
      state = open(proxy, attempt_timeout_ms: 2_000)
      Proxy.plan(proxy, [:hang])
      assert {:ok, _} = Backend.put_object(state, "k", %{"n" => 1}, timeout: 30_000)
    end

    test "a caller is killed: its request is cancelled", %{proxy: proxy, state: state} do
      Proxy.plan(proxy, [:hang])
      caller = spawn(fn -> Backend.get_object(state, "k", timeout: 60_000) end)
      Cluster.wait_until(fn -> Proxy.open(proxy) == 1 end)
      Process.exit(caller, :kill)
      Cluster.wait_until(fn -> Proxy.open(proxy) == 0 end)
    end

    test "a cancelled request is never answered", %{proxy: proxy, state: state} do
      Proxy.plan(proxy, [:hang])
      {_tag, handle, _timeout} = Request.start(state, {:get, "k", false}, timeout: 60_000)
      Cluster.wait_until(fn -> Proxy.open(proxy) == 1 end)
      assert Native.store_cancel(handle)
      Cluster.wait_until(fn -> Proxy.open(proxy) == 0 end)
      refute_received _answer
    end

    test "no more than max_in_flight are under way, max_waiting wait, one more is refused at once", %{proxy: proxy} do
      state = open(proxy, max_in_flight: 2, max_waiting: 1)
      Proxy.plan(proxy, [:hang, :hang])
      get = fn n -> Request.start(state, {:get, "k#{n}", false}, timeout: 60_000) end
      under_way = for n <- 1..2, do: get.(n)
      Cluster.wait_until(fn -> Proxy.open(proxy) == 2 end)
      # One of the two further requests waits; it may be either one.
      [{third, _, _}, {fourth, _, _}] = more = for n <- 3..4, do: get.(n)
      assert_receive {refused, {:error, :overloaded}} when refused in [third, fourth], 60_000
      assert 2 = Proxy.open(proxy)
      assert {:ok, _} = Backend.put_object(state, "x/__nodes/n", %{}, timeout: 60_000)
      waiting = Enum.reject(more, &(elem(&1, 0) == refused))
      for {_tag, handle, _timeout} <- under_way ++ waiting, do: assert(Native.store_cancel(handle))
      refute_received _answer
      Cluster.wait_until(fn -> Backend.get_object(state, "k5", []) == {:error, :not_found} end)
    end
  end

  describe "requests to the store" do
    test "consistent reads and conditional writes have the leader header, others do not", %{proxy: proxy} do
      state = open(proxy, read_your_writes: false)
      header = fn -> for %{headers: headers} <- Proxy.requests(proxy), do: headers["x-tigris-consistent"] end
      {:ok, %{etag: etag}} = Backend.put_object(state, "k", %{"n" => 1}, [])
      {:ok, _} = Backend.get_object(state, "k", [])
      assert [nil, nil] = header.()
      {:ok, _} = Backend.get_object(state, "k", consistent: true)
      {:ok, _} = Backend.put_object(state, "k", %{"n" => 2}, etag: etag)
      {:ok, _} = Backend.try_claim(state, "k2", %{"n" => 1})
      assert ["true", "true", "true"] = header.()
    end

    test "the condition is in the request itself", %{proxy: proxy, state: state} do
      {:ok, {:claimed, etag}} = Backend.try_claim(state, "k", %{"n" => 1})
      {:ok, %{etag: next}} = Backend.put_object(state, "k", %{"n" => 2}, etag: etag)
      :ok = Backend.delete_object(state, "k", etag: next)
      assert [claim, write, bury, delete] = Proxy.requests(proxy)
      assert claim.headers["if-none-match"] == "*"
      assert write.headers["if-match"] == etag
      assert {"PUT", "DELETE"} = {bury.method, delete.method}
      assert bury.headers["if-match"] == next
      assert delete.headers["if-match"] not in [nil, next]
    end
  end

  describe "refused" do
    test "a failing listing without an error handler raises the reason", %{proxy: proxy, state: state} do
      Proxy.plan(proxy, [@wrong_key])

      assert_raise ListingError, ~r/listing "x\/" .*:denied/, fn ->
        Enum.to_list(Backend.list_all_objects_stream(state, "x/"))
      end
    end

    test "a directory that cannot be opened" do
      assert_raise ArgumentError, ~r/creating the directory/, fn -> Backend.init_backend(url: "file:///dev/null/no") end
    end

    test "invalid URLs and options, each error naming what is wrong" do
      s3 = ["s3:bucket", "s3://", "s3://key:secret@bucket", "s3://bucket/a//b"]

      for url <- ["nothing", "ftp://host/x", "file://relative" | s3] do
        error = assert_raise ArgumentError, fn -> Backend.init_backend(url: url) end
        assert Exception.message(error) =~ "expected s3://" or Exception.message(error) =~ "is not a key"
        refute Exception.message(error) =~ "key:secret"
      end

      assert_raise ArgumentError, ~r/reigon/, fn -> Backend.init_backend(url: "s3://b", config: [reigon: "x"]) end
    end

    test "invalid keys" do
      {:ok, %{state: state}} = Backend.init_backend(url: "memory:")

      for key <- ["", "/a", "a/", "a//b", "a/../b", "a\nb", <<"k", 255>>, String.duplicate("k", 2_000)] do
        assert {:error, {:invalid_key, %{reason: _}}} = Backend.get_object(state, key, [])
        assert {:error, {:invalid_key, %{reason: _}}} = Backend.put_object(state, key, %{}, [])
      end
    end

    test "bodies that are too large, empty or not JSON" do
      {:ok, %{state: state}} = Backend.init_backend(url: "memory:", max_object_bytes: 10)
      assert {:error, {:too_large, %{bytes: 12, limit: 10}}} = Backend.put_object(state, "k", %{"n" => 123_456})

      for bytes <- ["", "{", ~s({"vsn":1,"state":{},"meta":"?"})] do
        {:ok, %{state: state}} = Backend.init_backend(Store.Places.directory())
        {:ok, etag} = Request.run(state, {:put, "k", bytes, :always, :always, false}, [])
        assert {:ok, ^bytes, ^etag} = Request.run(state, {:get, "k", true}, [])
        assert {:error, {:unreadable, %{key: "k", error: %{__exception__: true}}}} = Backend.get_object(state, "k", [])
      end
    end
  end

  test "update_object: a function that does not return {:ok, data} or an error raises, and nothing is written" do
    {:ok, %{state: state}} = Backend.init_backend(url: "memory:")
    {:ok, _object} = Backend.put_object(state, "k", %{"n" => 1})

    assert_raise ArgumentError, ~r/returned %{"n" => 2}, expected {:ok, data} or {:error, reason}/, fn ->
      Backend.update_object(state, "k", fn _object -> %{"n" => 2} end)
    end

    assert {:ok, %{body: %{"n" => 1}}} = Backend.get_object(state, "k")
  end

  test "update_object: another writer is faster, also where the host leaves max_retries open" do
    {:ok, %{state: state}} = Backend.init_backend(url: "memory:")

    for opts <- [[], [max_retries: nil], [max_retries: 1]] do
      {:ok, _object} = Backend.put_object(state, "k", %{"n" => 1})

      add = fn %{body: %{"n" => n}} ->
        if n == 1, do: {:ok, _object} = Backend.put_object(state, "k", %{"n" => 2})
        {:ok, %{"n" => n + 10}}
      end

      assert {:ok, %{body: %{"n" => 12}}} = Backend.update_object(state, "k", add, opts)
    end
  end

  test "a listing is one request for each page: a sweep does not read running servers" do
    {:ok, %{state: state}} = Backend.init_backend(url: "memory:")
    for n <- 1..50, do: {:ok, _} = Backend.put_object(state, "x/#{n}", %{"n" => n})
    before = Backend.stats(state).requests
    # The options that DurableServer passes.
    opts = [consistent: false, include_objects: true, error_handler: fn _reason -> :continue end]
    assert 50 = state |> Backend.list_all_objects_stream("x/", opts) |> Enum.count()
    assert Backend.stats(state).requests == before + 1
  end

  test "a failing page calls the error handler: :continue asks again, :halt ends", %{proxy: proxy} do
    state = open(proxy, max_retries: 0)
    for n <- 1..3, do: {:ok, _} = Backend.put_object(state, "x/#{n}", %{})
    test = self()

    for {verdict, count} <- [continue: 3, halt: 0] do
      handler = fn reason -> send(test, {:failed, reason}) && verdict end
      Proxy.plan(proxy, [@slow_down])
      listed = Backend.list_all_objects_stream(state, "x/", error_handler: handler)
      assert {verdict, Enum.count(listed)} == {verdict, count}
      assert_received {:failed, :slow_down}
    end
  end

  test "no message or inspected term contains credentials", %{proxy: proxy} do
    secret = "do-not-show-me-" <> Base.encode16(:rand.bytes(8))

    config = fn ->
      [access_key_id: "id-" <> secret, secret_access_key: secret, region: "us-east-1", endpoint: Proxy.endpoint(proxy)]
    end

    {:ok, backend} = Backend.init_backend(url: "s3://handoff/x", config: config)

    Proxy.plan(proxy, [
      @wrong_key,
      {:answer, 400, [], "<Error><Code>#{secret}</Code></Error>"},
      {:answer, 500, [], secret}
    ])

    answers = for _ <- 1..3, do: Backend.get_object(backend.state, "k", max_retries: 0)
    assert [{:error, {:denied, _}}, {:error, {:server, _}}, {:error, {:server, _}}] = answers
    refute inspect({backend, answers}, limit: :infinity, printable_limit: :infinity) =~ secret
  end
end
