defmodule DurableHandoff.Host.StoredStateTest do
  @moduledoc "`DurableServer.StoredState.from_object_store_term/1` in the shapes that versions 0.1.1 to 0.1.8 answer."
  use ExUnit.Case, async: true

  alias DurableHandoff.Host.StoredState

  defmodule Host do
    @stored %{__struct__: DurableServer.StoredState, state: %{"n" => 1}, meta: %{status: :running}, vsn: 1, etag: nil}

    def stored, do: @stored

    def from_object_store_term(%{"vsn" => _, "state" => _, "meta" => "readable"} = term) when map_size(term) == 3,
      do: {:ok, @stored}

    def from_object_store_term(%{"vsn" => _, "state" => _, "meta" => "of a later version"}), do: :some_other_answer
    def from_object_store_term(%{"vsn" => _, "state" => _, "meta" => "bare"}), do: @stored
    def from_object_store_term(%{"vsn" => _, "state" => _, "meta" => "raises"}), do: raise("no")
    # As DurableServer's main branch and 0.1.1 to 0.1.4 do; the latter have another text.
    def from_object_store_term(%{"vsn" => _, "state" => _, "meta" => <<_::binary>>}),
      do: {:error, ArgumentError.exception("invalid persisted metadata: invalid base64")}

    def from_object_store_term(%{"$durable_server_stored_state" => 1}),
      do: {:error, ArgumentError.exception("malformed stored-state envelope")}

    def from_object_store_term(_other), do: :not_stored_state
  end

  defp read(meta), do: StoredState.from_object(%{"vsn" => 1, "state" => %{}, "meta" => meta}, Host)

  test "a stored state is returned as the struct, without the tuple that DurableServer returns" do
    assert read("readable") == {:ok, Host.stored()}
  end

  test "a state that DurableServer cannot read is an error, so that it is not overwritten" do
    for meta <- ["?", "of a later version", "bare", "raises"] do
      assert {:error, error} = read(meta)
      assert is_exception(error)
    end

    assert {:error, %ArgumentError{}} = StoredState.from_object(%{"$durable_server_stored_state" => 1}, Host)
  end

  test "terms that are not a stored state stay unchanged: heartbeats, and maps with similar keys" do
    for object <- [%{"node" => "a@h"}, %{"vsn" => 1, "state" => %{}, "meta" => %{}}, %{}, [1], "text", 1, nil] do
      assert StoredState.from_object(object, Host) == {:ok, object}
    end
  end

  test "a stored state that is already decoded stays unchanged" do
    assert StoredState.from_object(Host.stored(), Host) == {:ok, Host.stored()}
  end

  test "without DurableServer a stored state stays a map" do
    assert {:error, %UndefinedFunctionError{}} = StoredState.from_object(%{"vsn" => 1}, NoSuchHost)
  end
end
