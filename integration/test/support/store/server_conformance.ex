defmodule Store.ServerConformance do
  @moduledoc """
  How a store behind a network must behave when the network, the server or the credentials fail. Runs on the
  server that `use` names; each test has its own proxy in front of it.

      use Store.ServerConformance, kind: :s3
  """

  use ExUnit.CaseTemplate

  alias DurableHandoff.Store, as: Backend
  alias DurableServer.StoredState
  alias Store.{Proxy, Servers}

  using opts do
    quote location: :keep do
      import Store.ServerConformance, only: [at: 2, behind_proxy: 1, every_request: 2, owned: 1, refused_by: 1]

      alias DurableHandoff.Store, as: Backend
      alias Store.{Proxy, Servers}

      @kind unquote(opts[:kind])

      describe "the response is lost" do
        test "of a write that was applied: success, with the etag that was written" do
          {proxy, state} = behind_proxy(@kind)
          {:ok, %{etag: first}} = Backend.put_object(state, "k", owned(1))
          Proxy.plan(proxy, [:lose_answer])
          assert {:ok, %{etag: second}} = Backend.put_object(state, "k", owned(2), etag: first)
          assert ["PUT", "PUT", "PUT", "GET"] = for(%{method: method} <- Proxy.requests(proxy), do: method)
          assert %{readbacks: 1, retries: 1} = Backend.stats(state)
          assert {:ok, _} = Backend.put_object(state, "k", owned(3), etag: second)
        end

        test "of a claim that was applied: success" do
          {proxy, state} = behind_proxy(@kind)
          Proxy.plan(proxy, [:lose_answer])
          assert {:ok, {:claimed, etag}} = Backend.try_claim(state, "k", owned(1))
          assert {:ok, %{etag: ^etag}} = Backend.get_object(state, "k", consistent: true)
        end

        test "of a write that came after another writer's: a conflict" do
          {proxy, state} = behind_proxy(@kind)
          {:ok, %{etag: old}} = Backend.put_object(state, "k", owned(1))
          {:ok, _} = Backend.put_object(state, "k", owned(2), etag: old)
          Proxy.plan(proxy, [:lose_answer])
          assert {:error, :conflict} = Backend.put_object(state, "k", owned(3), etag: old)
          assert {:ok, %{body: %{state: %{"n" => 2}}}} = Backend.get_object(state, "k", consistent: true)
        end

        test "of a deletion that was applied: success" do
          {proxy, state} = behind_proxy(@kind)
          {:ok, %{etag: etag}} = Backend.put_object(state, "k", owned(1))
          # On S3 and Azure a deletion reads the object first.
          Proxy.plan(proxy, if(@kind == :google, do: [:lose_answer], else: [:pass, :lose_answer]))
          assert :ok = Backend.delete_object(state, "k", etag: etag)
          assert {:error, :not_found} = Backend.get_object(state, "k", consistent: true)
        end
      end

      test "the server never responds: the caller's timeout ends the request and closes the connection" do
        {proxy, state} = behind_proxy(@kind)
        Proxy.plan(proxy, List.duplicate(:hang, 1_000))

        for request <- [
              &Backend.get_object(state, "k", &1),
              &Backend.put_object(state, "k", %{"n" => 1}, &1),
              &Backend.delete_object(state, "k", &1)
            ] do
          # On a busy machine the timeout may pass before the request is sent. So this is repeated until one
          # has reached the proxy.
          Cluster.wait_until(fn ->
            assert {:error, :timeout} = request.(timeout: 300)
            Proxy.requests(proxy) != []
          end)

          Cluster.wait_until(fn -> Proxy.open(proxy) == 0 end)
        end
      end

      test "no server listens: an error with the reason" do
        # No process takes port 1; one that was free a moment ago could be taken.
        for answer <- every_request(at(@kind, "http://127.0.0.1:1"), max_retries: 0) do
          assert {:error, {:network, %{reason: reason}}} = answer
          assert reason =~ "refused"
        end
      end

      test "the store asks to slow down: retried and counted, then {:error, :slow_down}" do
        {proxy, state} = behind_proxy(@kind)
        slow_down = {:answer, 503, [{"retry-after", "0"}], "<Error><Code>SlowDown</Code></Error>"}
        Proxy.plan(proxy, [slow_down, slow_down])
        assert {:ok, _} = Backend.put_object(state, "k", %{"n" => 1}, max_retries: 2)
        assert %{slow_downs: 2, retries: 2} = Backend.stats(state)
        Proxy.plan(proxy, [slow_down, slow_down])
        assert {:error, :slow_down} = Backend.get_object(state, "k", max_retries: 1)
      end

      test "wrong credentials: every request is {:error, {:denied, _}}, without the secret in it" do
        {state, secret} = refused_by(@kind)
        answers = [Backend.ensure_ready(state) | every_request(state, [])]

        for answer <- answers do
          assert {:error, {:denied, %{status: status, code: _word}}} = answer
          assert status in [401, 403]
        end

        refute inspect({state, answers}, limit: :infinity) =~ secret
      end

      test "the bucket does not exist" do
        options = Servers.options(@kind, url: Servers.bucket(@kind, "nobody-has-this"))
        {:ok, %{state: state}} = Backend.init_backend(options)

        for answer <- [
              Backend.ensure_ready(state),
              Backend.get_object(state, "k"),
              Backend.put_object(state, "k", %{}),
              Backend.try_claim(state, "k", %{})
            ] do
          assert {:error, {:no_bucket, %{bucket: "nobody-has-this"}}} = answer
        end
      end
    end
  end

  @doc "A proxy in front of the server of that kind, and a store that uses it."
  @spec behind_proxy(Servers.kind()) :: {pid(), Backend.t()}
  def behind_proxy(kind) do
    proxy = start_supervised!({Proxy, Servers.endpoint(kind)})
    {proxy, at(kind, Proxy.endpoint(proxy))}
  end

  @doc "A store at an address, without memory of what was just written."
  @spec at(Servers.kind(), String.t(), keyword()) :: Backend.t()
  def at(kind, endpoint, config \\ []) do
    options = Servers.options(kind, read_your_writes: false, config: Servers.address(kind, endpoint) ++ config)
    {:ok, %{state: state}} = Backend.init_backend(options)
    state
  end

  @doc "A store whose credentials are refused, and the secret among them."
  @spec refused_by(Servers.kind()) :: {Backend.t(), String.t()}
  def refused_by(kind) do
    {config, secret} = Servers.wrong_key(kind)
    proxy = start_supervised!({Proxy, Servers.endpoint(kind)})
    # The S3 servers do not check signatures, so the proxy gives S3's answer.
    if kind in [:s3, :ministack] do
      body = "<Error><Code>SignatureDoesNotMatch</Code><StringToSign>#{secret}</StringToSign></Error>"
      Proxy.plan(proxy, List.duplicate({:answer, 403, [], body}, 10))
    end

    {at(kind, Proxy.endpoint(proxy), config), secret}
  end

  @doc "The answers to one request of each kind."
  @spec every_request(Backend.t(), keyword()) :: [term()]
  def every_request(state, opts) do
    [
      Backend.get_object(state, "k", opts),
      Backend.put_object(state, "k", %{"n" => 1}, opts),
      Backend.delete_object(state, "k", opts),
      list(state, opts)
    ]
  end

  @doc "A stored state that names its owner."
  @spec owned(integer()) :: struct()
  def owned(n) do
    meta = struct!(DurableServer.Meta, status: :running, pid: self(), node_str: "a@host")
    %StoredState{state: %{"n" => n}, meta: meta, vsn: 1}
  end

  # The errors that the error handler of a listing got.
  defp list(state, opts) do
    test = self()
    ref = make_ref()

    handler = fn reason ->
      send(test, {ref, {:error, reason}})
      :halt
    end

    [] = state |> Backend.list_all_objects_stream("x/", [error_handler: handler] ++ opts) |> Enum.to_list()
    receive do: ({^ref, answer} -> answer)
  end
end
