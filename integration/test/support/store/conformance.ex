defmodule Store.Conformance do
  @moduledoc """
  Tests of every storage backend, run on the backend that `use` names.

      use Store.Conformance, backend: DurableHandoff.Store, options: {Store.Servers, :s3, []}

  `options` is a function that returns the backend's options. Each test opens its own store.
  """

  use ExUnit.CaseTemplate

  using opts do
    quote location: :keep do
      alias DurableServer.StoredState

      @backend unquote(opts[:backend])
      # Enough time for 2,500 writes to a server on this busy machine.
      @moduletag timeout: 600_000

      setup do
        {module, function, args} = unquote(opts[:options])
        {:ok, backend} = @backend.init_backend(apply(module, function, args))
        {:ok, state: backend.state, backend: backend}
      end

      test "proposes the heartbeat and discovery settings of the built-in backend", %{backend: backend} do
        assert %{heartbeat_tracking_mode: :poll, discovery_interval_ms: 60_000, heartbeat_interval_ms: 10_000} =
                 backend.defaults

        assert %{heartbeat_subscribe?: false, list_includes_body?: false, conditional_delete?: true} = backend.features
      end

      test "ensure_ready succeeds", %{state: state} do
        assert :ok = @backend.ensure_ready(state)
      end

      test "a StoredState is read back: string keys in its state, its meta unchanged", %{state: state} do
        facts = %{status: :stopped_graceful, restart_attempt_node: "a@host", pid: self(), permanent: true}
        meta = struct!(DurableServer.Meta, facts)
        stored = %StoredState{state: %{count: 1, nested: %{tag: :word, list: [nil, true, 1.5]}}, meta: meta, vsn: 3}
        assert {:ok, %{body: ^stored, etag: etag}} = @backend.put_object(state, "k", stored, [])
        assert {:ok, %{body: read, etag: ^etag}} = @backend.get_object(state, "k", consistent: true)
        assert {:ok, %{body: ^read, etag: ^etag}} = @backend.get_object(state, "k", consistent: true)
        assert %StoredState{vsn: 3, meta: ^meta} = read
        assert read.state == %{"count" => 1, "nested" => %{"tag" => "word", "list" => [nil, true, 1.5]}}
      end

      test "encode and decode convert a state as a write and a read do", %{state: state} do
        stored = %StoredState{state: %{count: 1}, meta: struct!(DurableServer.Meta, status: :running), vsn: 1}
        {:ok, encoded} = @backend.encode(state, stored)

        assert {:ok, %StoredState{state: %{"count" => 1}, meta: %{status: :running}, vsn: 1}} =
                 @backend.decode(state, encoded)
      end

      test "a state that JSON cannot represent is refused, and nothing is stored", %{state: state} do
        for term <- [{:a, :tuple}, self()] do
          assert {:error, {:not_encodable, _}} = @backend.put_object(state, "k", %{"term" => term}, [])
          assert {:error, {:not_encodable, _}} = @backend.try_claim(state, "k", %{"term" => term})
        end

        assert {:error, :not_found} = @backend.get_object(state, "k", [])
      end

      test "try_claim: one of 32 concurrent claims succeeds, in each round", %{state: state} do
        for round <- 1..5 do
          key = "claim/#{round}"
          results = Store.Conformance.race(32, fn n -> @backend.try_claim(state, key, %{"n" => n}) end)
          assert [{:ok, {:claimed, etag}}] = Enum.filter(results, &match?({:ok, _}, &1))
          assert Enum.count(results, &(&1 == {:error, :already_claimed})) == 31
          assert {:ok, %{etag: ^etag}} = @backend.get_object(state, key, consistent: true)
        end
      end

      test "put_object with an etag: one of 32 concurrent writers succeeds, in each round", %{state: state} do
        {:ok, {:claimed, etag}} = @backend.try_claim(state, "k", %{"round" => 0})

        Enum.reduce(1..5, etag, fn round, etag ->
          write = fn n -> @backend.put_object(state, "k", %{"round" => round, "n" => n}, etag: etag) end
          results = Store.Conformance.race(32, write)
          assert [{:ok, %{body: body, etag: next}}] = Enum.filter(results, &match?({:ok, _}, &1))
          assert Enum.count(results, &(&1 == {:error, :conflict})) == 31
          assert {:ok, %{body: ^body, etag: ^next}} = @backend.get_object(state, "k", consistent: true)
          next
        end)
      end

      test "update_object: concurrent increments are all kept; the function's error is returned", %{state: state} do
        {:ok, _} = @backend.put_object(state, "k", %{"n" => 0}, [])
        Store.Conformance.race(8, fn _n -> Store.Conformance.increment(@backend, state, "k") end)
        assert {:ok, %{body: %{"n" => 8}}} = @backend.get_object(state, "k", consistent: true)
        assert {:error, :no} = @backend.update_object(state, "k", fn _object -> {:error, :no} end, [])
        assert {:error, :not_found} = @backend.update_object(state, "none", fn object -> {:ok, object.body} end, [])
        assert {:ok, %{body: %{"n" => 8}}} = @backend.get_object(state, "k", consistent: true)
      end

      test "put_object with an etag: a stale etag, or one for a missing object, is a conflict", %{state: state} do
        {:ok, %{etag: first}} = @backend.put_object(state, "k", %{"n" => 1}, [])
        assert {:ok, %{etag: second}} = @backend.put_object(state, "k", %{"n" => 2}, etag: first)
        assert {:error, :conflict} = @backend.put_object(state, "k", %{"n" => 3}, etag: first)
        assert {:error, :conflict} = @backend.put_object(state, "absent", %{"n" => 3}, etag: first)
        assert {:ok, %{body: %{"n" => 2}, etag: ^second}} = @backend.get_object(state, "k", consistent: true)
      end

      test "DurableServer's options, and unknown ones of later versions, are accepted", %{state: state} do
        assert {:error, :not_found} = @backend.update_object(state, "k", &{:ok, &1.body}, timeout: :infinity)

        for opts <- [
              [timeout: :infinity, max_retries: 0],
              [timeout: nil, max_retries: nil],
              [max_retries: 100, timeout: 9_999],
              [content_type: "application/json", of_a_later_version: %{}]
            ] do
          {:ok, %{etag: etag}} = @backend.put_object(state, "k", %{"n" => 1}, opts)
          assert {:ok, %{body: %{"n" => 1}}} = @backend.get_object(state, "k", [consistent: false] ++ opts)
          assert {:ok, %{etag: etag}} = @backend.put_object(state, "k", %{"n" => 2}, [etag: etag] ++ opts)
          change = fn %{body: %{"n" => 2}, etag: ^etag} -> {:ok, %{"n" => 3}} end
          assert {:ok, %{body: %{"n" => 3}, etag: etag}} = @backend.update_object(state, "k", change, opts)
          listed = @backend.list_all_objects_stream(state, "k", [error_handler: fn _reason -> :halt end] ++ opts)
          assert [%{key: "k"}] = Enum.to_list(listed)
          assert :ok = @backend.delete_object(state, "k", [etag: etag] ++ opts)
        end
      end

      test "delete_object: with an etag, without one, and of a missing object", %{state: state} do
        {:ok, %{etag: old}} = @backend.put_object(state, "k", %{"n" => 1}, [])
        {:ok, %{etag: etag}} = @backend.put_object(state, "k", %{"n" => 2}, [])
        assert {:error, :conflict} = @backend.delete_object(state, "k", etag: old)
        assert :ok = @backend.delete_object(state, "k", etag: etag)
        assert {:error, :not_found} = @backend.delete_object(state, "k", [])
        assert {:error, :not_found} = @backend.get_object(state, "k", consistent: true)
        {:ok, _} = @backend.put_object(state, "k", %{"n" => 3}, [])
        assert :ok = @backend.delete_object(state, "k", [])
      end

      test "a listing has the keys of its prefix, with etags that a write accepts", %{state: state} do
        for key <- ["x/2", "x/1", "x/sub/3", "xy", "y/1"],
            do: {:ok, _} = @backend.put_object(state, key, %{"key" => key}, [])

        list = fn prefix, opts -> state |> @backend.list_all_objects_stream(prefix, opts) |> Enum.sort_by(& &1.key) end
        assert ["x/1", "x/2", "x/sub/3"] = for(%{key: key} <- list.("x/", []), do: key)
        assert ["x/1", "x/2", "x/sub/3", "xy"] = for(%{key: key} <- list.("x", consistent: true), do: key)
        assert [%{key: "y/1", etag: etag}] = list.("y/", include_objects: true)
        assert [] = list.("z/", [])
        assert [%{etag: listed}] = list.("xy", [])
        assert {:ok, _} = @backend.put_object(state, "xy", %{"n" => 1}, etag: listed)
        assert {:error, :conflict} = @backend.put_object(state, "xy", %{"n" => 2}, etag: listed)
        assert :ok = @backend.delete_object(state, "y/1", etag: etag)
      end

      test "a listing of 2,500 keys spans several pages and has each key once", %{state: state} do
        keys = for n <- 1..2_500, do: "many/#{rem(n, 7)}/key #{n}"
        put = fn key -> {:ok, _} = @backend.put_object(state, key, %{"key" => key}, timeout: 300_000) end
        keys |> Task.async_stream(put, max_concurrency: 16, timeout: 330_000) |> Stream.run()
        {:ok, _} = @backend.put_object(state, "other", %{}, [])
        listed = for %{key: key} <- @backend.list_all_objects_stream(state, "many/", []), do: key
        assert length(listed) == 2_500
        assert Enum.sort(listed) == Enum.sort(keys)
        # A reader that stops early requests no further page.
        assert 10 = state |> @backend.list_all_objects_stream("many/", []) |> Enum.take(10) |> length()
      end

      test "keys with slashes, spaces, Unicode and percent signs", %{state: state} do
        keys = ["a/b/c", "a b/c d", "Ünïcode/日本語", "100%", "a%2Fb", "a+b&c=d?e#f", "x'(y)!*", "a.json", "a.json/b"]

        for key <- keys do
          assert {:ok, {:claimed, etag}} = @backend.try_claim(state, key, %{"key" => key})
          assert {:ok, %{body: %{"key" => ^key}, etag: ^etag}} = @backend.get_object(state, key, consistent: true)
          assert {:ok, %{body: %{"key" => ^key}}} = @backend.get_object(state, key, consistent: true)
        end

        listed = for %{key: key} <- @backend.list_all_objects_stream(state, "", []), do: key
        assert Enum.sort(listed) == Enum.sort(keys)
        for key <- keys, do: assert(:ok = @backend.delete_object(state, key, []))
        assert [] = Enum.to_list(@backend.list_all_objects_stream(state, "", []))
      end

      test "a body of 5 MB, and an empty one", %{state: state} do
        large = %{"text" => String.duplicate("0123456789", 500_000)}
        assert {:ok, %{etag: etag}} = @backend.put_object(state, "large", large, [])
        assert {:ok, %{body: ^large, etag: ^etag}} = @backend.get_object(state, "large", [])
        assert {:ok, %{body: ^large, etag: ^etag}} = @backend.get_object(state, "large", consistent: true)
        assert {:ok, _} = @backend.put_object(state, "empty", %{}, etag: nil)
        assert {:ok, %{body: empty}} = @backend.get_object(state, "empty", [])
        assert empty == %{}
      end
    end
  end

  @doc "Runs `fun` with each of 1..count in parallel. Returns the results."
  @spec race(pos_integer(), (pos_integer() -> term())) :: [term()]
  def race(count, fun) do
    parent = self()

    tasks =
      for n <- 1..count do
        Task.async(fn ->
          send(parent, {:ready, self()})
          receive do: (:go -> fun.(n))
        end)
      end

    for task <- tasks, do: receive(do: ({:ready, pid} when pid == task.pid -> :ok))
    for task <- tasks, do: send(task.pid, :go)
    Task.await_many(tasks, 120_000)
  end

  @doc "Adds one, and repeats that after each conflict."
  @spec increment(module(), term(), String.t()) :: :ok
  def increment(backend, state, key) do
    case backend.update_object(state, key, fn %{body: %{"n" => n}} -> {:ok, %{"n" => n + 1}} end, []) do
      {:ok, _object} -> :ok
      {:error, :conflict} -> increment(backend, state, key)
    end
  end
end
