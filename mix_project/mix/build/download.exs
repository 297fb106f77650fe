defmodule DurableHandoff.Build.Download do
  @moduledoc """
  Downloads a file over HTTP or HTTPS, with a limit for its size and its time.

  `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are respected. Certificates are checked with those of the system,
  or those in `HEX_CACERTS_PATH`, which Hex uses too.
  """

  alias DurableHandoff.Build.Machine

  @profile :durable_handoff_download

  @doc """
  The body at `url`, or a sentence that says why it could not be loaded. Options: `max_bytes:`; `idle_ms:` (30
  s), the longest time without data; `total_ms:` (5 minutes).
  """
  @spec get(String.t(), keyword()) :: {:ok, binary()} | {:error, String.t()}
  def get(url, options) do
    Enum.each([:inets, :ssl], &Machine.start_otp!/1)
    # A profile of its own: the settings of the default one stay as they are.
    _ = :inets.stop(:httpc, @profile)
    {:ok, _pid} = :inets.start(:httpc, profile: @profile)

    try do
      with {:ok, tls} <- tls(url),
           {:ok, auth} <- proxy(url),
           do: request(url, tls ++ auth, Map.new(Keyword.merge([idle_ms: 30_000, total_ms: 300_000], options)))
    after
      :inets.stop(:httpc, @profile)
    end
  end

  defp request(url, http_options, limits) do
    http = [connect_timeout: limits.idle_ms, timeout: limits.total_ms, autoredirect: true] ++ http_options
    headers = [{~c"user-agent", ~c"durable_handoff"}]

    case :httpc.request(:get, {String.to_charlist(url), headers}, http, [sync: false, stream: :self], @profile) do
      {:ok, request} ->
        until_ms = now_ms() + limits.total_ms
        result = receive_body(request, [], 0, until_ms, limits)
        :httpc.cancel_request(request, @profile)
        flush(request)
        result

      {:error, reason} ->
        {:error, "the request could not be sent: #{explain(reason)}"}
    end
  end

  defp receive_body(request, parts, size, until_ms, limits) do
    left_ms = max(until_ms - now_ms(), 0)

    receive do
      {:http, {^request, :stream_start, _headers}} ->
        receive_body(request, parts, size, until_ms, limits)

      {:http, {^request, :stream, part}} when size + byte_size(part) > limits.max_bytes ->
        {:error, "the answer has more than #{limits.max_bytes} bytes"}

      {:http, {^request, :stream, part}} ->
        receive_body(request, [parts | part], size + byte_size(part), until_ms, limits)

      {:http, {^request, :stream_end, _headers}} ->
        {:ok, IO.iodata_to_binary(parts)}

      {:http, {^request, {{_version, status, phrase}, _headers, _body}}} ->
        {:error, "the server answered #{status} #{phrase}"}

      {:http, {^request, {:error, reason}}} ->
        {:error, "the download failed: #{explain(reason)}"}
    after
      min(left_ms, limits.idle_ms) ->
        if left_ms > limits.idle_ms,
          do: {:error, "nothing arrived for #{limits.idle_ms} ms"},
          else: {:error, "the download took more than #{limits.total_ms} ms"}
    end
  end

  defp explain({:failed_connect, [{:to_address, {host, port}} | details]}) do
    why =
      case List.last(details) do
        {_family, _options, {:tls_alert, {:unknown_ca, _text}}} ->
          "its certificate is signed by an authority that this system does not know; HEX_CACERTS_PATH names a file with it"

        {_family, _options, {:tls_alert, {_alert, text}}} ->
          to_string(text)

        {_family, _options, reason} ->
          inspect(reason)

        other ->
          inspect(other)
      end

    "no connection to #{host}:#{port}: #{why}"
  end

  defp explain(reason), do: inspect(reason)

  defp flush(request) do
    receive do
      {:http, answer} when elem(answer, 0) == request -> flush(request)
    after
      0 -> :ok
    end
  end

  defp now_ms, do: System.monotonic_time(:millisecond)

  defp tls("https:" <> _rest) do
    with {:ok, trusted} <- trusted() do
      verify = [
        verify: :verify_peer,
        depth: 5,
        customize_hostname_check: [match_fun: :public_key.pkix_verify_hostname_match_fun(:https)]
      ]

      {:ok, [ssl: trusted ++ verify]}
    end
  end

  defp tls(_http), do: {:ok, []}

  defp trusted do
    case System.get_env("HEX_CACERTS_PATH", "") do
      "" ->
        # OTP 25 is the first that finds the certificates of the system.
        if Code.ensure_loaded?(:public_key) and function_exported?(:public_key, :cacerts_get, 0),
          do: {:ok, [cacerts: apply(:public_key, :cacerts_get, [])]},
          else: {:error, "OTP before 25 finds no certificates of the system: set HEX_CACERTS_PATH"}

      path ->
        {:ok, [cacertfile: path]}
    end
  catch
    :error, reason -> {:error, "the system has no certificates (#{inspect(reason)}): install ca-certificates"}
  end

  defp proxy(url) do
    scheme = url |> String.split(":") |> hd() |> String.downcase()
    variable = Enum.find(["#{scheme}_proxy", String.upcase("#{scheme}_proxy")], &(System.get_env(&1, "") != ""))

    case variable && URI.parse(System.get_env(variable)) do
      nil ->
        {:ok, []}

      %URI{host: host, port: port} = uri when is_binary(host) and host != "" ->
        proxy = {{String.to_charlist(host), port || 80}, no_proxy()}
        :ok = :httpc.set_options([{if(scheme == "https", do: :https_proxy, else: :proxy), proxy}], @profile)
        {:ok, auth(uri.userinfo)}

      _other ->
        {:error, "#{variable} is no URL such as http://proxy:3128"}
    end
  end

  defp no_proxy do
    value = System.get_env("no_proxy") || System.get_env("NO_PROXY") || ""
    for name <- String.split(value, [",", " "], trim: true), do: name |> domain() |> String.to_charlist()
  end

  # ".example.com" of curl is "*.example.com" here.
  defp domain("." <> rest), do: "*." <> rest
  defp domain(name), do: name

  defp auth(nil), do: []

  defp auth(userinfo) do
    [user | password] = String.split(userinfo, ":", parts: 2)
    [proxy_auth: {charlist(user), charlist(Enum.join(password))}]
  end

  defp charlist(text), do: text |> URI.decode() |> String.to_charlist()
end
