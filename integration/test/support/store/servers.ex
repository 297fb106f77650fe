defmodule Store.Servers do
  @moduledoc """
  The object storage servers that `integration/servers run -- COMMAND` starts, as options of a
  `DurableHandoff.Store`.

  Each call gives a new path in the server's bucket. A test that needs a server fails without it, and says
  what to run.
  """

  # Public: the account of every Azurite.
  @azure_account "devstoreaccount1"
  @azure_key "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

  @type kind :: :s3 | :ministack | :azure | :google

  @s3 [:s3, :ministack]
  # These servers handle one request at a time on a busy machine. Requests that are given up and sent again
  # would make them even slower.
  @patient [timeout_ms: 180_000, attempt_timeout_ms: 60_000]

  @doc "Options for the server of a kind. `opts` take precedence, those in `config:` one by one."
  @spec options(kind(), keyword()) :: keyword()
  def options(kind, opts \\ []) do
    {config, opts} = Keyword.pop(opts, :config, [])

    [
      url: bucket(kind, "handoff") <> "/" <> Cluster.unique("t"),
      config: Keyword.merge(config(kind, endpoint(kind)), config)
    ]
    |> Keyword.merge(@patient)
    |> Keyword.merge(opts)
  end

  @doc "The URL of a bucket or container of that name."
  @spec bucket(kind(), String.t()) :: String.t()
  def bucket(kind, name) when kind in @s3, do: "s3://" <> name
  def bucket(:azure, name), do: "az://" <> name
  def bucket(:google, name), do: "gs://" <> name

  @doc "The option that holds a server's address."
  @spec address(kind(), String.t()) :: keyword()
  def address(:google, endpoint), do: [base_url: endpoint]
  def address(_kind, endpoint), do: [endpoint: endpoint]

  @doc "Well-formed credentials that the server refuses, and the secret that must not appear in any output."
  @spec wrong_key(kind()) :: {keyword(), String.t()}
  def wrong_key(kind) when kind in @s3, do: {[secret_access_key: "a-wrong-secret"], "a-wrong-secret"}
  def wrong_key(:google), do: {[bearer_token: "a-wrong-token"], "a-wrong-token"}

  def wrong_key(:azure) do
    key = Base.encode64("a wrong key of a length that is usual for keys of Azure")
    {[account_key: key], key}
  end

  @doc "Where the server is."
  @spec endpoint(kind() | :sts) :: String.t()
  def endpoint(:s3), do: variable("HANDOFF_S3_ENDPOINT")
  def endpoint(:ministack), do: variable("HANDOFF_MINISTACK_ENDPOINT")
  def endpoint(:azure), do: variable("HANDOFF_AZURE_ENDPOINT")
  def endpoint(:google), do: variable("HANDOFF_GCS_ENDPOINT")
  def endpoint(:sts), do: variable("HANDOFF_STS_ENDPOINT")

  @doc "The file with the certificate of `:sts`."
  @spec sts_certificate() :: String.t()
  def sts_certificate, do: variable("HANDOFF_STS_CERTIFICATE")

  @doc "Which server `:s3` is: `moto` or `ceph`."
  @spec s3_server() :: String.t()
  def s3_server, do: variable("HANDOFF_S3_SERVER")

  @doc "The program of `native/store_servers`."
  @spec program() :: String.t()
  def program, do: variable("HANDOFF_STORE_SERVERS")

  @doc "The address and the credentials of a server of that kind."
  @spec config(kind(), String.t()) :: keyword()
  def config(kind, endpoint), do: address(kind, endpoint) ++ credentials(kind)

  defp credentials(:azure), do: [account_name: @azure_account, account_key: @azure_key]
  defp credentials(:google), do: [bearer_token: "test"]
  defp credentials(_s3), do: [region: "us-east-1", access_key_id: "test", secret_access_key: "test"]

  defp variable(name) do
    System.get_env(name) ||
      raise "#{name} is not set: this test needs an object storage server. Run: integration/servers run -- mix test"
  end
end
