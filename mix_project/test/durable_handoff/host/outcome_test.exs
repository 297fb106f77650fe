defmodule DurableHandoff.Host.OutcomeTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Host.Outcome

  # A pid of another node, made from its external form: 103 is the tag of such a pid, 100 that of the node's
  # atom.
  defp pid_on(node) do
    name = Atom.to_string(node)
    :erlang.binary_to_term(<<131, 88, 119, byte_size(name), name::binary, 1::32, 0::32, 1::32>>)
  end

  setup do
    old = spawn(fn -> :ok end)
    %{old: old, target: :b@host, there: pid_on(:b@host), elsewhere: pid_on(:c@host), here: self()}
  end

  defp classify(result, context), do: Outcome.classify({:returned, result}, context.old, context.target)

  test "a pid is the new owner only if it is on another node", context do
    %{old: old, there: there, here: here} = context
    owner = &Outcome.owner({:returned, &1}, old)
    assert owner.({:ok, {there, %{}}}) == there
    assert owner.({:error, {:already_started, {there, %{}}}}) == there
    # A process in `init`, or the old one, is not an owner.
    for answer <- [
          {:error, {:already_started, there}},
          {:error, {:unreachable, there}},
          {:ok, {old, %{}}},
          {:error, {:already_started, {old, %{}}}},
          {:ok, {here, %{}}},
          {:ok, {:of_a_later_version, %{}}},
          {:ok, there},
          :ignore
        ],
        do: assert(owner.(answer) == nil)

    assert Outcome.owner({:raised, :exit, {there, %{}}}, old) == nil
  end

  describe "the contract's table" do
    test "it runs on the target, on a third node, or still here", context do
      assert classify({:ok, {context.there, %{}}}, context) == {:moved, nil}
      assert classify({:ok, {context.elsewhere, %{}}}, context) == {:moved, "c@host"}
      # The target still names the old process.
      assert classify({:ok, {context.old, %{}}}, context) == :retry_same
      assert classify({:error, {:already_started, {context.old, %{}}}}, context) == :retry_same
      # A different process on this node is not a move.
      assert classify({:ok, {context.here, %{}}}, context) == {:verify, {:runs_as, context.here}}
    end

    test "another node has started it: check that the process is alive", context do
      for pid <- [context.there, context.elsewhere, context.here] do
        assert classify({:error, {:already_started, {pid, %{}}}}, context) == {:verify, {:runs_as, pid}}
      end
    end

    test "the stop is queued or accepted", context do
      call = {GenServer, :call, [context.old, :stop, 5_000]}
      assert_errors(:stopping, [{:shutdown_call_failed, {:timeout, call}}, :shutdown_timeout], context)
    end

    test "a process that only holds the lock may still run init: it has not moved", context do
      boots = [{:already_started, context.there}, {:unreachable, context.there}]
      assert_errors({:verify, {:boots_as, context.there}}, boots, context)
      assert_errors(:retry_same, [{:already_started, context.old}], context)
    end

    test "DurableServer gave up waiting for a slow init, which is neither the store's fault nor a move", context do
      reasons = [:timeout, {:already_started, :noproc}, {:unreachable, :noproc}, {:restart_claimed, "c@host"}]
      assert_errors({:verify, {:may_come_up, :unknown}}, reasons, context)
    end

    test "a server that was deleted, cordoned or has crashed for good is not displaced", context do
      ended = [:not_found, :cordoned, :permanently_crashed, {:already_started, :deleting}]
      assert_errors({:verify, :ended}, ended, context)
    end

    test "it died or was stopping by itself", context do
      failed = [{:noproc, :call}, {:normal, :call}, {:shutdown, :call}, :noproc, {{:nodedown, :n}, :call}]
      assert_errors({:verify, :stopped_by_itself}, Enum.map(failed, &{:shutdown_call_failed, &1}), context)
    end

    test "its own code raised before the final write: not a store failure" do
      stack = [{MyApp.Counter, :terminate, 2, []}]

      for reason <- [{%RuntimeError{}, stack}, {:function_clause, stack}, {{:nocatch, 1}, stack}],
          do: assert(Outcome.unsaved(reason) == :stop_failed)

      assert Outcome.unsaved({:noproc, {GenServer, :call, [MyApp.Cache, :flush, 5_000]}}) == :stop_failed
    end

    test "it ended without a final write: the store may have failed" do
      backend = [{MyApp.Backend, :put_object, 4, []}]

      for reason <- [:normal, :killed, :noproc, {:timeout, backend}, {:timeout, {GenServer, :call, [:ekv, :put]}}],
          do: assert(Outcome.unsaved(reason) == :not_stored)
    end

    test "the reservation is lost", context do
      assert_errors({:verify, :reservation_lost}, [{:rehome_reservation_lost, %{status: :running}}], context)
      # DurableServer's actual error, from `nil and ...`.
      assert raised(:error, {:badbool, :and, nil}, context) == {:verify, :reservation_lost}
      assert raised(:error, %BadBooleanError{operator: :and, term: nil}, context) == {:verify, :reservation_lost}
    end

    test "the target refuses", context do
      full = [:node_shutting_down, :max_children_total, :max_children_module, :max_cpu, :max_memory, :max_disk]
      refused = Enum.map(full, &{:capacity_limit, &1}) ++ [:max_children, :not_ready, {:erpc, :noconnection}]
      assert_errors({:displaced, :target}, refused, context)
    end

    test "the answer of the remote start was lost, or nothing happened", context do
      assert_errors({:verify, {:may_come_up, :target}}, [{:erpc, :timeout}], context)
      assert_errors(:untouched, [:singleflight_overloaded], context)
    end
  end

  describe "answers that later versions may give" do
    test "additional elements and fields are ignored", context do
      assert classify({:ok, {context.there, %{}, :more}}, context) == {:moved, nil}
      assert classify({:ok, {context.there, %{}}, :more}, context) == {:moved, nil}
      assert classify({:ok, context.there}, context) == {:moved, nil}
      assert classify({:error, :not_ready, %{why: 1}}, context) == {:displaced, :target}
      assert classify({:error, {:shutdown_call_failed, {:timeout, :call, :more}}}, context) == :stopping
      assert classify({:error, {:shutdown_timeout, %{}}}, context) == :stopping
    end

    test "an unknown answer is never a success and never ends the attempt with an error", context do
      odd = [:ok, nil, {:ok, nil}, {:ok, {}}, {:ok, {nil, %{}}}, {:error, {:already_started, nil}}, {:maybe, 1}, {}, 7]
      for result <- odd, do: assert({result, classify(result, context)} == {result, {:verify, {:displaced, :unknown}}})
    end
  end

  describe "the cause is" do
    test "the server's own init", context do
      reasons = [
        :ignore,
        {:bad_return_value, 1},
        {:bad_init_return, 1},
        {%RuntimeError{}, []},
        {{:badmatch, 1}, [{Room, :init, 1, [file: ~c"room.ex", line: 1]}]},
        # The errors that the backends return for an object that cannot be read.
        %ArgumentError{},
        {:error, %ArgumentError{}, "bytes"},
        {:invalid_persisted_state, {:error, :badarg}},
        {:unexpected_value_type, %{}},
        {:EXIT, {%RuntimeError{}, []}},
        # Its process had ended when DurableServer began to monitor it.
        :noproc
      ]

      assert_errors({:verify, {:displaced, :server}}, reasons, context)

      assert classify(:ignore, context) == {:verify, {:displaced, :server}}
    end

    test "the target", context do
      reasons = [{:nodedown, :n}, :noconnection, {:erpc, :notsup}, {:undef, [{Room, :init, [%{}], []}]}]
      assert_errors({:verify, {:displaced, :target}}, reasons, context)
    end

    test "the store", context do
      reasons = [
        :unavailable,
        {:http_status, 503},
        {:storage_error, :x},
        # The built-in backend.
        :bad_gateway,
        %{__struct__: Req.Response, status: 503},
        %{__struct__: Req.TransportError, __exception__: true, reason: :timeout},
        %{__struct__: Mint.TransportError, __exception__: true, reason: :closed},
        # EKV and the mirror.
        :no_quorum,
        :quorum_timeout,
        :unconfirmed,
        :cluster_overflow,
        :cluster_not_ready,
        :shutting_down,
        {:consistent_read_failed, :no_quorum},
        {:ekv_exit, {:noproc, :call}},
        {:ekv_runtime_error, "text"},
        {:ekv_not_started, :name},
        {:mirror_failed, :no_quorum},
        {:storage_unavailable, :closed}
      ]

      assert_errors({:verify, {:displaced, :store}}, reasons, context)
    end

    test "the store, by an error of DurableHandoff.Store", context do
      facts = [
        network: %{reason: "connection refused"},
        server: %{status: 500, code: "InternalError"},
        denied: %{status: 403, code: "AccessDenied"},
        credentials: %{status: 503, reason: "busy"},
        unsupported: %{status: 501, code: "NotImplemented"},
        not_a_store: %{status: 404},
        protocol: %{reason: "no etag"},
        no_bucket: %{bucket: "b"},
        io: %{action: "locking", reason: "no space left"}
      ]

      assert_errors({:verify, {:displaced, :store}}, [:slow_down, :overloaded, :contended | facts], context)
    end

    test "the server, if its own object cannot be read or written", context do
      reasons = [
        not_encodable: %RuntimeError{},
        unreadable: %RuntimeError{},
        too_large: %{bytes: 2, limit: 1},
        invalid_key: %{reason: "it is empty"}
      ]

      assert_errors({:verify, {:displaced, :server}}, reasons, context)
    end

    test "unknown", context do
      assert_errors({:verify, {:displaced, :unknown}}, [:something_new], context)
    end
  end

  describe "an answer that is no answer" do
    test "raised, exited, thrown", context do
      req = %{__struct__: Req.TransportError, __exception__: true}

      for {cause, raised} <- [
            # The server's own code runs in other processes, so it is not the cause.
            unknown: {:error, %RuntimeError{}},
            unknown: {:error, {:case_clause, {:ok, {context.there, %{}}, :more}}},
            unknown: {:exit, {:noproc, :call}},
            unknown: {:throw, :ball},
            store: {:error, req},
            # The server's init returned :ignore, for which DurableServer has no clause.
            server: {:error, {:case_clause, :ignore}},
            server: {:error, %CaseClauseError{term: :ignore}},
            target: {:exit, {{:nodedown, :n}, :call}}
          ],
          {kind, reason} = raised,
          do: assert({raised, raised(kind, reason, context)} == {raised, {:verify, {:displaced, cause}}})
    end

    test "raised on the target before the start: DurableServer does not run there", context do
      for reason <- [%ArgumentError{}, :badarg, {:noproc, :call}] do
        raised = %ErlangError{original: {:exception, reason, []}}
        assert raised(:error, raised, context) == {:verify, {:displaced, :target}}
        assert raised(:error, {:exception, reason, []}, context) == {:verify, {:displaced, :target}}
      end

      assert raised(:exit, {:exception, {:noproc, :call}}, context) == {:verify, {:displaced, :target}}

      assert raised(:error, %ErlangError{original: {:exception, :undef, []}}, context) ==
               {:verify, {:displaced, :unknown}}
    end

    test "a raised error of erpc has the same meaning as a returned one", context do
      assert raised(:error, %ErlangError{original: {:erpc, :noconnection}}, context) == {:displaced, :target}
      assert raised(:error, {:erpc, :noconnection}, context) == {:displaced, :target}
      assert raised(:error, %ErlangError{original: {:erpc, :timeout}}, context) == {:verify, {:may_come_up, :target}}
    end
  end

  defp assert_errors(outcome, reasons, context) do
    for reason <- reasons, do: assert({reason, classify({:error, reason}, context)} == {reason, outcome})
  end

  defp raised(kind, reason, context), do: Outcome.classify({:raised, kind, reason}, context.old, context.target)
end
