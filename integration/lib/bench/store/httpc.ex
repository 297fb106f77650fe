defmodule HandoffBench.Store.Httpc do
  @moduledoc """
  The peer: conditional PUTs to S3 with Erlang's own `httpc` and `crypto`, and Signature Version 4.
  """

  @region "us-east-1"
  @key_id "bench"
  @secret "bench"

  alias DurableHandoff.Store.Body

  def key_id, do: @key_id
  def secret, do: @secret

  @doc """
  Returns a function of key, data and etag that writes and returns the new etag. It keeps one connection for
  each writer.
  """
  @spec client(String.t(), pos_integer()) :: (String.t(), term(), String.t() | nil -> String.t())
  def client(endpoint, writers) do
    {:ok, _started} = Application.ensure_all_started(:inets)
    {:ok, _pid} = :inets.start(:httpc, profile: :bench)
    :ok = :httpc.set_options([max_sessions: writers, max_keep_alive_length: 1, keep_alive_timeout: 60_000], :bench)
    host = String.replace_prefix(endpoint, "http://", "")
    fn key, data, etag -> put(host, "/handoff/httpc/" <> key, data, etag) end
  end

  defp put(host, path, data, etag) do
    {:ok, body} = Body.encode(data)
    condition = if etag, do: [{"if-match", etag}], else: []
    headers = for {name, value} <- sign(host, path, body, condition), do: {to_charlist(name), to_charlist(value)}
    request = {to_charlist("http://" <> host <> path), headers, ~c"application/json", body}

    # No TLS is used, so its default options, which need a running application, are left out.
    {:ok, {{_version, 200, _reason}, headers, _body}} =
      :httpc.request(:put, request, [ssl: []], [body_format: :binary], :bench)

    {_name, etag} = List.keyfind(headers, ~c"etag", 0)
    to_string(etag)
  end

  defp sign(host, path, body, more) do
    now = DateTime.utc_now() |> DateTime.truncate(:second) |> DateTime.to_iso8601(:basic)
    date = binary_part(now, 0, 8)
    hash = hex(:crypto.hash(:sha256, body))
    headers = Enum.sort([{"host", host}, {"x-amz-content-sha256", hash}, {"x-amz-date", now} | more])
    names = Enum.map_join(headers, ";", &elem(&1, 0))
    lines = for {name, value} <- headers, do: [name, ":", value, "\n"]
    request = ["PUT\n", path, "\n\n", lines, "\n", names, "\n", hash]
    scope = "#{date}/#{@region}/s3/aws4_request"
    text = ["AWS4-HMAC-SHA256\n", now, "\n", scope, "\n", hex(:crypto.hash(:sha256, request))]
    key = Enum.reduce([date, @region, "s3", "aws4_request"], "AWS4" <> @secret, &hmac(&2, &1))

    credential =
      "AWS4-HMAC-SHA256 Credential=#{@key_id}/#{scope}, SignedHeaders=#{names}, Signature=#{hex(hmac(key, text))}"

    [{"authorization", credential} | List.keydelete(headers, "host", 0)]
  end

  defp hmac(key, data), do: :crypto.mac(:hmac, :sha256, key, data)
  defp hex(bytes), do: Base.encode16(bytes, case: :lower)
end
