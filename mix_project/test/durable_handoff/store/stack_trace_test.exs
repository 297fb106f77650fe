defmodule DurableHandoff.Store.StackTraceTest do
  @moduledoc "A library's function that refuses its arguments shows them in the stack trace, so in crash reports."

  use ExUnit.Case, async: true

  alias DurableHandoff.Native.Library
  alias DurableHandoff.Store
  alias DurableHandoff.Store.Native

  setup do
    {:ok, secret: "do-not-show-me-" <> Base.encode16(:rand.bytes(8))}
  end

  test "options of which one is not UTF-8", %{secret: secret} do
    for {url, token} <- [{"s3://bucket", <<255>>}, {<<"s3://bucket", 255>>, "token"}] do
      config = [secret_access_key: secret, session_token: token]
      refute raised(fn -> Store.init_backend(url: url, config: config) end) =~ secret
    end
  end

  test "a library that does not know these bounds", %{secret: secret} do
    :ok = Native.load()
    open = fn -> Native.store_open("s3://bucket", [{"secret_access_key", secret}], %{}) end
    assert raised(open) =~ secret
    raised = raised(fn -> Library.without_arguments(open) end)
    refute raised =~ secret
    assert raised =~ "store_open/3"
  end

  test "a request that the library refuses", %{secret: secret} do
    {:ok, %{state: store}} = Store.init_backend(url: "memory:")
    raised = raised(fn -> Store.put_object(%{store | ref: make_ref()}, "k", %{"secret" => secret}) end)
    refute raised =~ secret
    assert raised =~ "store_request/5"
  end

  test "a key that is not UTF-8 is an invalid key", %{secret: secret} do
    {:ok, %{state: store}} = Store.init_backend(url: "memory:")

    for call <- [
          &Store.get_object(store, &1),
          &Store.put_object(store, &1, %{"secret" => secret}),
          &Store.try_claim(store, &1, %{"secret" => secret}),
          &Store.delete_object(store, &1)
        ] do
      assert {:error, {:invalid_key, %{reason: "it is not UTF-8"}}} = call.(<<"k", 255>>)
    end
  end

  # As a crash report shows it.
  defp raised(call) do
    call.()
  rescue
    error -> Exception.format(:error, error, __STACKTRACE__)
  else
    answer -> flunk("no exception, but #{inspect(answer)}")
  end
end
