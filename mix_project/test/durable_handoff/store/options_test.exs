defmodule DurableHandoff.Store.OptionsTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Store
  alias DurableHandoff.Store.Options

  # One line for each invalid value: the option, the value, and the text that the message must contain.
  @bad [
    {:url, nil, "option :url is required, for example \"s3://bucket/path\""},
    {:url, "", ":url expects a string"},
    {:url, ~c"s3://bucket", ":url expects a string"},
    {:url, <<"s3://", 255>>, ":url expects a string"},
    {:config, "region=x", ":config expects a keyword list of strings"},
    {:config, %{region: "x"}, "or a function that returns one"},
    {:config, [region: 1], ":config expects a keyword list of strings"},
    {:config, [region: <<255>>], ":config expects a keyword list of strings in UTF-8"},
    {:config, [region: nil], ":config expects a keyword list of strings"},
    {:config, [{"region", "x"}], ":config expects a keyword list of strings"},
    {:timeout_ms, 0, ":timeout_ms got 0, expected a positive integer up to 3600000"},
    {:timeout_ms, :infinity, ":timeout_ms got :infinity, expected a positive integer"},
    {:attempt_timeout_ms, -1, "a positive integer up to 3600000"},
    {:max_retries, -1, "an integer from 0 to 100"},
    {:max_retries, 101, "an integer from 0 to 100"},
    {:max_in_flight, 0, "a positive integer up to 10000"},
    {:max_waiting, 1.5, "an integer from 0 to 1000000"},
    {:max_object_bytes, 0, "a positive integer up to 1073741824"},
    {:page_size, 1_001, "a positive integer up to 1000"},
    {:read_your_writes, :no, "true or false"},
    {:read_your_writes_bytes, 0, "a positive integer"},
    {:read_your_writes_ms, 60_001, "a positive integer up to 60000"},
    {:discovery_interval_ms, 0, "a positive integer"},
    {:heartbeat_interval_ms, nil, "a positive integer"}
  ]

  for {{option, value, expected}, index} <- Enum.with_index(@bad) do
    test "#{index}: #{option} refuses #{inspect(value)}" do
      options = Keyword.put([url: "memory:"], unquote(option), unquote(Macro.escape(value)))
      error = assert_raise ArgumentError, fn -> Options.new!(options) end
      assert Exception.message(error) =~ unquote(expected)
    end
  end

  test "one error has all problems, and for misspelt options the nearest name" do
    error = assert_raise ArgumentError, fn -> Options.new!(max_retry: 1, page_size: 0, config: 1) end

    for expected <- ["did you mean :max_retries?", ":page_size got 0", ":config expects", ":url is required"] do
      assert Exception.message(error) =~ expected
    end
  end

  test "config is a keyword list, or a function that returns one and is called once" do
    assert Options.new!(url: "memory:", config: [region: "x", use_emulator: true]).config ==
             [{"region", "x"}, {"use_emulator", "true"}]

    assert Options.new!(url: "memory:", config: fn -> [region: "x"] end).config == [{"region", "x"}]

    for wrong <- ["x", [region: 1], fn -> [region: "x"] end] do
      assert_raise ArgumentError, ~r/:config/, fn -> Options.new!(url: "memory:", config: fn -> wrong end) end
    end
  end

  test "no error contains a value that may be secret" do
    secret = "hunter-" <> Base.encode16(:rand.bytes(8))

    for options <- [
          secret,
          [secret],
          [{"url", secret}],
          %{secret_access_key: secret},
          [url: String.to_charlist(secret)],
          [url: {:s3, secret}],
          [url: "memory:", config: secret],
          [url: "memory:", config: %{secret_access_key: secret}],
          [url: "memory:", config: [{"secret_access_key", secret}]],
          [url: "memory:", config: [secret_access_key: {secret}]],
          [url: "memory:", config: fn -> secret end],
          [url: "memory:", config: fn -> [secret_access_key: [secret]] end],
          [url: "memory:", config: [secret_access_key: secret <> <<255>>]],
          [url: "memory:", config: [secret_access_key: secret], max_retries: :many]
        ] do
      error = assert_raise ArgumentError, fn -> Options.new!(options) end
      refute Exception.message(error) =~ secret
    end
  end

  test "an open store and a provider's error show the URL but no secret" do
    secret = "hunter-" <> Base.encode16(:rand.bytes(8))
    config = [access_key_id: secret, secret_access_key: secret, session_token: secret, region: "x"]
    {:ok, backend} = Store.init_backend(url: "s3://bucket/x", config: config)
    shown = inspect(backend, limit: :infinity, structs: true)
    assert shown =~ "s3://bucket/x"
    refute shown =~ secret

    for {url, config} <- [
          {"s3://bucket", [region: "x", conditional_put: secret]},
          {"s3://bucket", [region: "x", reigon: secret]},
          {"gs://bucket", [service_account_key: secret]},
          {"az://box", [account_name: "a", account_key: secret]},
          {"s3://#{secret}@bucket", []},
          {"memory:", [region: secret]}
        ] do
      error = assert_raise ArgumentError, fn -> Store.init_backend(url: url, config: config) end
      assert Exception.message(error) =~ "DurableHandoff.Store cannot be opened: "
      refute Exception.message(error) =~ secret
    end
  end
end
