defmodule DurableHandoff.Host.OutcomeTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.Host.Outcome

  # A pid of another node, made from its external form: 103 is the tag of such a pid, 100 that of the node's atom.
  defp pid_on(node) do
    name = Atom.to_string(node)
    :erlang.binary_to_term(<<131, 88, 119, byte_size(name), name::binary, 1::32, 0::32, 1::32>>)
  end

  setup do
    old = spawn(fn -> :ok end)
    %{old: old, target: :b@host, there: pid_on(:b@host), elsewhere: pid_on(:c@host), here: self()}
  end

  defp classify(result, context), do: Outcome.classify({:returned, result}, context.old, context.target)

  describe "the contract's table" do
    test "it runs on the target", context do
      assert classify({:ok, {context.there, %{}}}, context) == {:moved, nil}
    end

    test "it runs on a third node", context do
      assert classify({:ok, {context.elsewhere, %{}}}, context) == {:moved, "c@host"}
    end

    test "the target still names the old process", context do
      assert classify({:ok, {context.old, %{}}}, context) == :retry_same
      assert classify({:error, {:already_started, {context.old, %{}}}}, context) == :retry_same
    end

    test "somebody else has started it: look whether it lives", context do
      for pid <- [context.there, context.elsewhere, context.here] do
        assert classify({:error, {:already_started, {pid, %{}}}}, context) == {:look, {:runs_as, pid}}
      end
    end

    test "an answer with a process of this node that is not the old one is no move", context do
      assert classify({:ok, {context.here, %{}}}, context) == {:look, {:runs_as, context.here}}
    end

    test "the stop is queued or accepted", context do
      call = {GenServer, :call, [context.old, :stop, 5_000]}
      assert classify({:error, {:shutdown_call_failed, {:timeout, call}}}, context) == :stopping
      assert classify({:error, :shutdown_timeout}, context) == :stopping
    end

    test "it died or was stopping by itself", context do
      for reason <- [{:noproc, :call}, {:normal, :call}, {:shutdown, :call}, :noproc, {{:nodedown, :n}, :call}] do
        assert classify({:error, {:shutdown_call_failed, reason}}, context) == {:look, :stopped_by_itself}
      end
    end

    test "the reservation is lost", context do
      assert classify({:error, {:rehome_reservation_lost, %{status: :running}}}, context) == {:look, :reservation_lost}
    end

    test "the target refuses", context do
      for reason <- [{:capacity_limit, :total}, :not_ready, {:erpc, :noconnection}] do
        assert classify({:error, reason}, context) == {:displaced, :target}
      end
    end

    test "the answer of the remote start was lost", context do
      assert classify({:error, {:erpc, :timeout}}, context) == {:look, :may_come_up}
    end

    test "nothing happened", context do
      assert classify({:error, :singleflight_overloaded}, context) == :untouched
    end
  end

  describe "what later versions may answer" do
    test "more elements and fields change nothing", context do
      assert classify({:ok, {context.there, %{}, :more}}, context) == {:moved, nil}
      assert classify({:ok, {context.there, %{}}, :more}, context) == {:moved, nil}
      assert classify({:ok, context.there}, context) == {:moved, nil}
      assert classify({:error, {:already_started, context.old}}, context) == :retry_same
      assert classify({:error, :not_ready, %{why: 1}}, context) == {:displaced, :target}
      assert classify({:error, {:shutdown_call_failed, {:timeout, :call, :more}}}, context) == :stopping
      assert classify({:error, {:shutdown_timeout, %{}}}, context) == :stopping
    end

    test "an unknown answer is never a success and never ends the attempt with an error", context do
      for result <- [
            :ok,
            nil,
            {:ok, nil},
            {:ok, {}},
            {:ok, {nil, %{}}},
            {:error, {:already_started, nil}},
            {:maybe, 1},
            {},
            7
          ] do
        assert classify(result, context) == {:look, {:displaced, :unknown}}, inspect(result)
      end
    end
  end

  describe "blame" do
    test "the server's own start", context do
      for reason <- [
            :ignore,
            {:bad_return_value, 1},
            {%RuntimeError{}, []},
            %RuntimeError{},
            {:EXIT, {%RuntimeError{}, []}}
          ] do
        assert classify({:error, reason}, context) == {:look, {:displaced, :server}}, inspect(reason)
      end

      assert classify(:ignore, context) == {:look, {:displaced, :server}}
    end

    test "the target", context do
      for reason <- [{:nodedown, :n}, :noconnection, :shutting_down, {:erpc, :notsup}] do
        assert classify({:error, reason}, context) == {:look, {:displaced, :target}}, inspect(reason)
      end
    end

    test "the store", context do
      for reason <- [:timeout, :unavailable, {:http_status, 503}, {:storage_error, :x}] do
        assert classify({:error, reason}, context) == {:look, {:displaced, :store}}, inspect(reason)
      end
    end

    test "the store, in the words of DurableHandoff.Store", context do
      facts = [
        network: %{reason: "connection refused"},
        server: %{status: 500, code: "InternalError"},
        denied: %{status: 403, code: "AccessDenied"},
        no_bucket: %{bucket: "b"},
        io: %{action: "locking", reason: "no space left"}
      ]

      for reason <- [:timeout, :slow_down, :overloaded, :contended | facts] do
        assert classify({:error, reason}, context) == {:look, {:displaced, :store}}, inspect(reason)
      end
    end

    test "the server, whose own object cannot be read or written", context do
      for reason <- [
            not_encodable: %RuntimeError{},
            unreadable: %RuntimeError{},
            too_large: %{bytes: 2, limit: 1},
            invalid_key: %{reason: "it is empty"}
          ] do
        assert classify({:error, reason}, context) == {:look, {:displaced, :server}}, inspect(reason)
      end
    end

    test "nobody in particular", context do
      assert classify({:error, :something_new}, context) == {:look, {:displaced, :unknown}}
    end
  end

  describe "an answer that is no answer" do
    test "raised, exited, thrown", context do
      assert raised(:error, %RuntimeError{}, context) == {:look, {:displaced, :server}}
      assert raised(:error, :case_clause, context) == {:look, {:displaced, :server}}
      assert raised(:exit, {:noproc, :call}, context) == {:look, {:displaced, :unknown}}
      assert raised(:exit, {{:nodedown, :n}, :call}, context) == {:look, {:displaced, :target}}
      assert raised(:throw, :ball, context) == {:look, {:displaced, :unknown}}
    end

    test "raised on the target before the server was asked to start: the host is not up there", context do
      for reason <- [%ArgumentError{}, :badarg, {:noproc, :call}] do
        raised = %ErlangError{original: {:exception, reason, []}}
        assert raised(:error, raised, context) == {:look, {:displaced, :target}}
      end

      assert raised(:exit, {:exception, {:noproc, :call}}, context) == {:look, {:displaced, :target}}

      assert raised(:error, %ErlangError{original: {:exception, :undef, []}}, context) ==
               {:look, {:displaced, :unknown}}
    end

    test "erpc's own errors mean what they mean when they are returned", context do
      assert raised(:error, %ErlangError{original: {:erpc, :noconnection}}, context) == {:displaced, :target}
      assert raised(:error, {:erpc, :noconnection}, context) == {:displaced, :target}
      assert raised(:error, %ErlangError{original: {:erpc, :timeout}}, context) == {:look, :may_come_up}
    end
  end

  defp raised(kind, reason, context), do: Outcome.classify({:raised, kind, reason}, context.old, context.target)
end
