defmodule DurableHandoff.OptionsTest do
  use ExUnit.Case, async: true

  alias DurableHandoff.{Options, Schema}

  describe "no handoff" do
    test "when the option is absent, nil, false or not enabled" do
      for value <- [nil, false, [enabled: false], [timeout_ms: 1_000, enabled: false]] do
        assert Options.new!(value) == :disabled, inspect(value)
      end
    end

    test "a misspelt option is found even when handoff is not enabled" do
      assert_raise ArgumentError, ~r/did you mean :timeout_ms/, fn -> Options.new!(enabled: false, timout_ms: 1) end
    end
  end

  test "true alone takes all defaults" do
    assert %Options{enabled: true, timeout_ms: 30_000, max_concurrency: 50, concurrency: :adaptive} = Options.new!(true)
    assert Options.new!(true) == Options.new!([])
  end

  # One line for each invalid value: the option, the value, and the text that the message must contain.
  @bad [
    {:enabled, :yes, "true or false"},
    {:enabled, nil, "true or false"},
    {:timeout_ms, 0, "a positive integer"},
    {:timeout_ms, -1, "a positive integer"},
    {:timeout_ms, 1.5, "a positive integer"},
    {:timeout_ms, :infinity, "a positive integer"},
    {:timeout_ms, 86_400_001, "up to 86400000"},
    {:max_concurrency, 0, "a positive integer"},
    {:max_concurrency, 10_001, "up to 10000"},
    {:max_concurrency, "50", "a positive integer"},
    {:concurrency, :adaptve, "one of :adaptive, :fixed, did you mean :adaptive?"},
    {:concurrency, 8, "one of :adaptive, :fixed"},
    {:max_concurrency_per_target, 0, "nil or a positive integer"},
    {:attempt_timeout_ms, 0, "a positive integer"},
    {:max_attempts, 0, "a positive integer"},
    {:max_consecutive_failures, 0, "a positive integer"},
    {:max_failure_ratio, 0, "a number above 0 and at most 1"},
    {:max_failure_ratio, 1.1, "a number above 0 and at most 1"},
    {:max_failure_ratio, "half", "a number above 0 and at most 1"},
    {:wait_for_target_ms, -1, "an integer from 0"},
    {:reconnect, :always, "true or false"},
    {:quiet, :yes, "true or false"},
    {:sticky, true, "one of :gated, :any_level, :ignore"},
    {:sticky, :ignored, "did you mean :ignore?"},
    {:prefer, :newest, "one of :new_release, :none"},
    {:generation, :v2, "nil or a string of 1 to 255 bytes"},
    {:generation, "", "nil or a string of 1 to 255 bytes"},
    {:generation, <<255>>, "nil or a string of 1 to 255 bytes"},
    {:modules, [{MyApp.Room, false}], "a map such as"},
    {:modules, %{MyApp.Room => :never}, "true, false or [priority: integer]"},
    {:modules, %{MyApp.Room => []}, "true, false or [priority: integer]"},
    {:modules, %{MyApp.Room => [:priority]}, "true, false or [priority: integer]"},
    {:modules, %{MyApp.Room => [priority: :high]}, "an integer from -1000000000 to 1000000000"},
    {:modules, %{MyApp.Room => [prioritty: 1]}, "did you mean :priority?"},
    {:modules, %{"room" => false}, "expected a module"},
    {:eligible, :some, ":all, :permanent or a function of one argument"},
    {:eligible, &Kernel.+/2, ":all, :permanent or a function of one argument"},
    {:start_leftovers, 1, "true or false"},
    {:executor, :rust, ":auto, :embedded or {:node, name}"},
    {:executor, {:node, "name"}, ":auto, :embedded or {:node, name}"},
    {:executor, {:node, nil}, ":auto, :embedded or {:node, name}"},
    {:max_per_second, 0, "nil or a positive integer"},
    {:max_per_second, 10_001, "up to 10000"},
    {:rebalance, nil, "true, false or options such as"},
    {:rebalance, [], "true, false or options such as"},
    {:rebalance, [after_ms: 0], "a positive integer"},
    {:rebalance, [tolerance: 0], "a number above 0 and at most 10"},
    {:rebalance, [tolerance: 10.5], "a number above 0 and at most 10"},
    {:rebalance, [min_server: 5], "did you mean :min_servers?"},
    {:rebalance, [max_per_second: 0.5], "nil or a positive integer"},
    {:shutdown_budget_ms, 0, "nil or a positive integer"}
  ]

  for {{name, value, _takes}, index} <- Enum.with_index(@bad) do
    test "#{name}: #{inspect(value)} raises" do
      {name, value, takes} = Enum.at(@bad, unquote(index))
      error = assert_raise ArgumentError, fn -> Options.new!([{name, value}]) end
      assert error.message =~ inspect(name)
      assert error.message =~ takes
    end
  end

  test "a release that other nodes would ignore is refused" do
    longest = String.duplicate("é", 127) <> "1"
    assert Options.new!(generation: longest).generation == longest
    assert_raise ArgumentError, ~r/1 to 255 bytes/, fn -> Options.new!(generation: longest <> "1") end
  end

  test "every option has at least one bad value above" do
    assert Enum.sort(Keyword.keys(Options.schema())) == @bad |> Enum.map(&elem(&1, 0)) |> Enum.uniq() |> Enum.sort()
  end

  test "a drain is slower than another one if one of its limits is lower, no limit is the highest; or if it waits longer" do
    options = Options.new!(max_per_second: 10)
    refute Options.slower?(options, options)
    refute Options.slower?(Options.override!(options, max_per_second: nil, timeout_ms: 5), options)
    assert Options.slower?(options, Options.override!(options, max_per_second: nil))

    for {name, lower} <- [max_per_second: 9, max_concurrency: 49, max_concurrency_per_target: 20],
        do: assert(Options.slower?(Options.override!(options, [{name, lower}]), options))

    waits = Options.override!(options, wait_for_target_ms: 5)
    assert Options.slower?(waits, options)
    refute Options.slower?(options, waits)
    refute Options.slower?(Options.override!(options, wait_for_target_ms: 0), options)
  end

  describe "options of a rebalance" do
    test "are merged from defaults, supervisor and call; the call takes precedence" do
      assert {%{max_concurrency: 10, timeout_ms: 3_600_000}, settings} = Options.rebalance(Options.new!(true), [])
      assert settings == %{after_ms: 60_000, tolerance: 0.05, min_servers: 20}

      options = Options.new!(max_concurrency: 50, rebalance: [tolerance: 0.2, max_concurrency: 4])
      assert {%{max_concurrency: 3}, %{tolerance: 0.2}} = Options.rebalance(options, max_concurrency: 3)
    end

    test "after_ms may be 0 on request: then servers that have just arrived may move" do
      assert {_drain, %{after_ms: 0}} = Options.rebalance(Options.new!(true), after_ms: 0)
      assert_raise ArgumentError, ~r/:after_ms got -1/, fn -> Options.rebalance(Options.new!(true), after_ms: -1) end
    end

    test "raise if the call's are invalid" do
      assert_raise ArgumentError, ~r/did you mean :tolerance/, fn ->
        Options.rebalance(Options.new!(true), tolerence: 1)
      end
    end
  end

  test "all problems are in one message, not only the first" do
    error = assert_raise ArgumentError, fn -> Options.new!(timeout_ms: 0, max_concurency: 5, sticky: 1) end
    assert error.message =~ ":timeout_ms got 0"
    assert error.message =~ "unknown option :max_concurency, did you mean :max_concurrency?"
    assert error.message =~ ":sticky got 1"
  end

  test "an unknown option without a similar name: the error lists all options" do
    error = assert_raise ArgumentError, fn -> Options.new!(zzz: 1) end
    assert error.message =~ "unknown option :zzz"
    assert error.message =~ ":timeout_ms"
  end

  describe "options that contradict each other" do
    test "a wait for a target longer than the drain" do
      assert_raise ArgumentError, ~r/:wait_for_target_ms got 2000, expected at most :timeout_ms \(1000\)/, fn ->
        Options.new!(timeout_ms: 1_000, wait_for_target_ms: 2_000)
      end
    end

    test "more attempts towards one target than towards all" do
      assert_raise ArgumentError, ~r/:max_concurrency_per_target got 9, expected at most :max_concurrency \(8\)/, fn ->
        Options.new!(max_concurrency: 8, max_concurrency_per_target: 9)
      end
    end
  end

  describe "override!/2" do
    test "enabled: false is refused for a single drain" do
      options = Options.new!(true)
      assert_raise ArgumentError, ~r/:enabled got false/, fn -> Options.override!(options, enabled: false) end
      assert Options.override!(options, enabled: true) == options
    end

    test "changes one drain and keeps the rest" do
      options = Options.new!(timeout_ms: 10_000, max_attempts: 5, generation: "7")
      assert %Options{timeout_ms: 500, max_attempts: 5, generation: "7"} = Options.override!(options, timeout_ms: 500)
    end

    test "checks the overrides by themselves, and together with the other options" do
      options = Options.new!(wait_for_target_ms: 1_000)
      assert_raise ArgumentError, ~r/:timeout_ms got 0/, fn -> Options.override!(options, timeout_ms: 0) end
      assert_raise ArgumentError, ~r/:wait_for_target_ms got 1000/, fn -> Options.override!(options, timeout_ms: 10) end
    end
  end

  test "every option is in the documentation, with type, range and default, and its example is valid" do
    docs = Schema.docs(Options.schema())

    for {name, entry} <- Options.schema() do
      assert docs =~ "  * `#{name}`: "
      assert entry[:change], "#{name} does not say when to change it"

      value =
        case entry[:example] do
          {:code, "System" <> _} -> "4f2a1c"
          {:code, text} -> text |> Code.eval_string() |> elem(0)
          value -> value
        end

      assert Options.new!([{name, value}])
    end

    assert docs =~ "  * `timeout_ms`: a positive integer up to 86_400_000; default `30_000`."
  end
end
