defmodule Store.LivesTest do
  @moduledoc "A server's whole life, with its objects in `DurableHandoff.Store`."

  use HandoffCase, nodes: 2

  alias DurableHandoff.Store, as: Backend
  alias DurableHandoff.Store.Request

  # A sweep of DurableServer can leave a server to the other node for a while.
  @sweeps [discovery_interval_ms: 50]

  setup %{opts: opts} do
    {:ok, opts: Keyword.put(opts, :backend, {Backend, Store.Places.directory()})}
  end

  defp child(key, state \\ %{}), do: {Counter, key: key, initial_state: Map.merge(%{key: key, permanent: false}, state)}

  defp ensure(context, node, key, opts \\ []) do
    # DurableServer's own limit is five seconds.
    {:ok, {pid, _meta}} = call(node, Host, :ensure_started_child, [context.sup, child(key), [timeout: 60_000] ++ opts])
    pid
  end

  test "a stopped server starts again with its state, repeatedly", %{a: a} = context do
    start_handoff(context, a)

    for times <- 1..3 do
      pid = ensure(context, a, "k")
      assert ask(pid, :add_sync) == times
      assert :ok = call(a, Host, :terminate_child, [context.sup, "k"])
      await_down(pid)
    end

    assert ask(ensure(context, a, "k"), :get) == 3
  end

  test "a server keeps its state in a move to another node and back", %{a: a, b: b} = context do
    start_cluster(context)
    assert ask(ensure(context, a, "k", local_only: true), :add) == 1
    assert {:ok, {pid, _meta}} = moved(context, a, b)
    assert node(pid) == b
    assert ask(pid, :add) == 2
    await_on(context, a, "k", b)
    assert {:ok, {pid, _meta}} = moved(context, b, a)
    assert ask(pid, :get) == 2
  end

  test "a drain moves a server, and its new node stores its state", %{a: a, b: b} = context do
    start_cluster(context)
    assert ask(ensure(context, a, "k", local_only: true), :add) == 1
    assert {:ok, %{moved: 1}} = drain(context, a)
    assert ask(await_on(context, b, "k", b), :add_sync) == 2
  end

  test "another node's sweep starts a permanent server that was stopped", %{a: a, b: b} = context do
    [app] = [start_handoff(context, a, handoff_on_shutdown: false)]
    permanent = child("k", %{permanent: true})
    {:ok, {pid, _meta}} = call(a, Host, :start_child, [context.sup, permanent, [local_only: true, timeout: 60_000]])
    assert ask(pid, :add) == 1
    :ok = stop_children(a, app)
    start_handoff(context, b, backend(context, @sweeps))
    assert ask(await_on(context, b, "k", b), :get) == 1
  end

  test "a server that is deleted, running or stopped, starts with a new state", %{a: a} = context do
    start_handoff(context, a)

    for stop_first? <- [false, true] do
      pid = ensure(context, a, "k")
      assert ask(pid, :add_sync) == 1
      if stop_first?, do: :ok = call(a, Host, :terminate_child, [context.sup, "k"])

      if function_exported?(Host, :terminate_and_delete_child, 2),
        do: delete(context, a),
        else: delete_object(context, a)

      await_down(pid)
      assert {:error, :not_found} = call(a, Host, :ensure_started_child, [context.sup, child("k"), [existing: true]])
    end

    assert ask(ensure(context, a, "k"), :get) == 0
  end

  test "an object that DurableServer cannot read is not started, not overwritten, and named", %{a: a} = context do
    start_handoff(context, a)
    %{store: place} = store(context)
    key = storage_key(context, "k")
    bytes = ~s({"vsn":1,"state":{"count":7},"meta":"?"})
    {:ok, _etag} = Request.run(place, {:put, key, bytes, :always, :always, false}, [])

    assert {:error, {:unreadable, %{key: ^key}}} = Backend.get_object(place, key, consistent: true)
    refute match?({:ok, _}, start_within(context, a, "k", 8_000))
    assert {:ok, ^bytes, _etag} = Request.run(place, {:get, key, true}, [])
  end

  # Versions before 0.1.5 raise where later ones return an error.
  defp start_within(context, node, key, timeout_ms) do
    call(node, Host, :ensure_started_child, [context.sup, child(key), [timeout: timeout_ms]])
  catch
    kind, reason -> {kind, reason}
  end

  defp moved(context, from, to) do
    wait_until(fn ->
      # A target that has not received the stop yet returns the old process.
      with {:ok, {pid, _meta}} = moved when node(pid) == to <- rehome(context, from, Counter, "k", target_node: to),
           do: moved,
           else: (_ -> nil)
    end)
  end

  defp delete(context, node), do: assert(:ok = call(node, Host, :terminate_and_delete_child, [context.sup, "k"]))

  defp delete_object(context, node) do
    call(node, Host, :terminate_child, [context.sup, "k"])
    :ok = Backend.delete_object(store(context).store, storage_key(context, "k"))
  end

  defp store(context) do
    {Backend, opts} = context.opts[:backend]
    {:ok, %{state: state}} = Backend.init_backend(opts)
    %{store: state}
  end
end
