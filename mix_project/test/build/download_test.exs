defmodule DurableHandoff.Build.DownloadTest do
  # Not async: proxies are in the environment.
  use ExUnit.Case

  import DurableHandoff.EnvironmentVariables
  import DurableHandoff.OwnDirectory

  alias DurableHandoff.Build.{Download, Machine}
  alias DurableHandoff.LoopbackServer, as: Server

  # Mix removes these applications from the code path, and the code under test adds them again.
  @compile {:no_warn_undefined, [:ssl, :public_key]}

  @limits [max_bytes: 1000, idle_ms: 60_000, total_ms: 60_000]

  setup do
    names = ~w(http_proxy HTTP_PROXY https_proxy HTTPS_PROXY no_proxy NO_PROXY HEX_CACERTS_PATH)
    put_variables(Map.new(names, &{&1, nil}))
  end

  test "the body arrives unchanged, also after a redirect" do
    target = start(fn _request -> Server.ok("the body") end)
    location = Server.url(target) <> "/b"
    redirect = "HTTP/1.1 302 Found\r\nlocation: #{location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    first = start(fn _request -> redirect end)
    assert Download.get(Server.url(first) <> "/a", @limits) == {:ok, "the body"}
    assert ["GET /b HTTP/1.1" <> _] = Server.requests(target)
  end

  test "an error names a status other than 200" do
    server = start(fn _request -> Server.status("404 Not Found") end)
    assert Download.get(Server.url(server), @limits) == {:error, "the server answered 404 Not Found"}
  end

  test "a server that sends nothing, or stops halfway, ends the download" do
    for part <- ["", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"] do
      server = start(fn _request -> {:hang, part} end)
      assert {:error, reason} = Download.get(Server.url(server), Keyword.put(@limits, :idle_ms, 500))
      assert reason == "nothing arrived for 500 ms"
    end
  end

  test "the time for the whole download is bounded, even while data arrives" do
    server = start(fn _request -> {:hang, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"} end)
    assert {:error, reason} = Download.get(Server.url(server), Keyword.put(@limits, :total_ms, 500))
    assert reason =~ "500 ms" or reason =~ "timeout"
  end

  test "a response that is too large is refused before it has fully arrived" do
    head = "HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n"
    # More than arrives at once.
    server = start(fn _request -> {:hang, head <> String.duplicate("x", 2_000_000)} end)
    assert Download.get(Server.url(server), @limits) == {:error, "the answer has more than 1000 bytes"}
  end

  test "the error without a server names the reason" do
    # The port is bound but nothing listens, so that no other process can get it.
    {:ok, socket} = :socket.open(:inet, :stream, :tcp)
    :ok = :socket.bind(socket, %{family: :inet, addr: {127, 0, 0, 1}, port: 0})
    {:ok, %{port: port}} = :socket.sockname(socket)
    address = "127.0.0.1:#{port}"

    assert Download.get("http://" <> address, @limits) ==
             {:error, "the download failed: no connection to #{address}: :econnrefused"}
  end

  test "a proxy gets the request, with its password, unless no_proxy names the host" do
    target = start(fn _request -> Server.ok("direct") end)
    proxy = start(fn _request -> Server.ok("through the proxy") end)
    put_variables(%{"HTTP_PROXY" => String.replace(Server.url(proxy), "://", "://user:p%40ss@")})

    assert Download.get(Server.url(target) <> "/x", @limits) == {:ok, "through the proxy"}
    assert [request] = Server.requests(proxy)
    assert request =~ "GET #{Server.url(target)}/x HTTP/1.1"
    assert request =~ ~r/proxy-authorization: Basic #{Regex.escape(Base.encode64("user:p@ss"))}/i

    put_variables(%{"NO_PROXY" => "example.com,127.0.0.1"})
    assert Download.get(Server.url(target) <> "/x", @limits) == {:ok, "direct"}
  end

  test "an HTTPS download uses a tunnel of the proxy, and fails without one" do
    proxy = start(fn _request -> Server.status("403 Forbidden") end)
    put_variables(%{"HTTPS_PROXY" => Server.url(proxy)})
    assert {:error, _reason} = Download.get("https://example.com/x", @limits)
    assert ["CONNECT example.com:443 HTTP/1.1" <> _] = Server.requests(proxy)
  end

  test "an invalid proxy URL is named" do
    put_variables(%{"HTTP_PROXY" => "proxy.internal:3128"})
    assert {:error, "HTTP_PROXY is no URL" <> _} = Download.get("http://example.com/", @limits)
  end

  describe "a server with TLS" do
    setup :own_directory

    # The client logs what it refuses.
    @describetag :capture_log

    setup %{tmp_dir: tmp_dir} do
      Machine.start_otp!(:ssl)
      # A minimal container does not know the content type.
      lookup = :inet_db.res_option(:lookup)
      :inet_db.add_host({127, 0, 0, 1}, [~c"localhost"])
      :inet_db.set_lookup([:file, :native])
      on_exit(fn -> :inet_db.set_lookup(lookup) end)
      authority = Path.join(tmp_dir, "authority.pem")
      {:ok, authority: authority, serve: &serve(authority, &1)}
    end

    test "with a certificate of an unknown CA is refused, and the error names the variable to set", %{serve: serve} do
      port = serve.("localhost")
      assert {:error, reason} = Download.get("https://localhost:#{port}/x", @limits)
      assert reason =~ "no connection to localhost:#{port}"
      assert reason =~ "HEX_CACERTS_PATH"
    end

    test "with a certificate of a CA in HEX_CACERTS_PATH is trusted", %{serve: serve, authority: authority} do
      port = serve.("localhost")
      put_variables(%{"HEX_CACERTS_PATH" => authority})
      assert Download.get("https://localhost:#{port}/x", @limits) == {:ok, "over TLS"}
    end

    test "with a certificate for another name is refused", %{serve: serve, authority: authority} do
      port = serve.("example.com")
      put_variables(%{"HEX_CACERTS_PATH" => authority})
      assert {:error, reason} = Download.get("https://localhost:#{port}/x", @limits)
      assert reason =~ "no connection to localhost:#{port}"
    end
  end

  # Serves one connection with a certificate for `name`. Writes the certificate of its CA to the file
  # `authority`.
  defp serve(authority, name) do
    # By default it would be signed with SHA-1, which later versions of OTP refuse.
    curve = [key: {:namedCurve, :secp256r1}, digest: :sha256]
    name = {:dNSName, String.to_charlist(name)}
    peer = curve ++ [extensions: [{:Extension, {2, 5, 29, 17}, false, [name]}]]
    chain = %{root: curve, intermediates: [], peer: peer}

    %{server_config: server, client_config: client} =
      :public_key.pkix_test_data(%{server_chain: chain, client_chain: chain})

    entries = for certificate <- client[:cacerts], do: {:Certificate, certificate, :not_encrypted}
    File.write!(authority, :public_key.pem_encode(entries))

    # Refused handshakes, which this tests, are not logged.
    options = [active: false, ip: {127, 0, 0, 1}, mode: :binary, log_level: :none]
    {:ok, listener} = :ssl.listen(0, options ++ Keyword.take(server, [:cert, :key, :cacerts]))
    {:ok, {_address, port}} = :ssl.sockname(listener)
    start_supervised!({Task, fn -> serve_one(listener) end})
    port
  end

  defp serve_one(listener) do
    {:ok, transport} = :ssl.transport_accept(listener)

    with {:ok, socket} <- :ssl.handshake(transport), {:ok, _request} <- :ssl.recv(socket, 0) do
      :ok = :ssl.send(socket, Server.ok("over TLS"))
      :ssl.close(socket)
    end
  end

  defp start(answer), do: start_supervised!({Server, answer}, id: make_ref())
end
