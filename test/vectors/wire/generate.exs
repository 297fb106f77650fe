# Writes the golden bytes of the wire messages: what this OTP's own term_to_binary makes of them.
#
#     elixir test/vectors/wire/generate.exs > test/vectors/wire/otp-$OTP.json
#
# native/handoff_wire/tests/golden/main.rs reads every otp-*.json here.
pid = :erlang.list_to_pid(~c"<0.90.0>")

config = %{
  max_concurrency: 50,
  concurrency: :adaptive,
  max_concurrency_per_target: nil,
  timeout_ms: 30_000,
  attempt_timeout_ms: 15_000,
  max_attempts: 3,
  max_consecutive_failures: 10,
  max_failure_ratio: 0.5,
  wait_for_target_ms: 0,
  sticky: :gated,
  prefer: :new_release,
  source: %{name: "a@h", started_at_ms: 1_700_000_000_000, generation: "1.2", region: nil},
  stickies: [[], [{:env, "FLY_REGION", "ord", 250}, {:env, "ZONE", nil, 0}, {:any, 1_000}]],
  modules: 2,
  future_skew_ms: 5_000,
  max_age_ms: 50_000
}

rebalance = Map.merge(config, %{goal: :rebalance, tolerance: 0.1, min_servers: 30, max_per_second: 100})

balance = %{
  idle: :node_draining,
  excess: 34,
  before: [%{name: "a@h", servers: 134, share: 100.0}, %{name: "b@h", servers: 66, share: 100}],
  after: [%{name: "a@h", servers: 120, share: 100.0}, %{name: "b@h", servers: 80, share: 100}]
}

node = %{
  name: "b@zürich",
  stamp_ms: 1_700_000_000_123,
  started_at_ms: nil,
  generation: "1.3",
  servers: 7,
  region: "zrh",
  draining: false,
  connected: true,
  capacity: [{:total, 3, 10}, {1, 2.5, 4.0}],
  resources: %{cpu: 12.5, max_cpu: 80, memory: nil},
  env: [{"FLY_REGION", "ord"}]
}

progress = %{
  total: 10,
  pending: 4,
  in_flight: 3,
  displaced: 1,
  stopping: 0,
  moved: 2,
  left: 0,
  failures: 1,
  retried: 1,
  limit: 8,
  finished: false
}

report = %{
  total: 10,
  moved: 7,
  left: %{no_target: 1, gone: 1, module_missing: 1},
  retried: 1,
  gap_us: %{count: 7, p50: 1_000, p90: 2_000, p99: 3_000, max: 5_000_000_000},
  duration_us: 123_456,
  targets: [{"b@h", 4}, {"c@h", 3}],
  concurrency: %{last: 8, highest: 12},
  learnt: %{limit: 8, latency_us: 42_000, knee: true},
  attempts: 11,
  failures: 1,
  ended: :done
}

plan = %{
  total: 10,
  moves: 7,
  left: %{no_target: 1, excluded: 2},
  targets: [{"b@h", 4}, {"c@h", 3}],
  timeout_ms: 30_000,
  estimate_us: 1_250_500,
  out_of_reach: ["d@h"]
}

events = [
  {:finished, 0, 1, {:moved, nil}, 1_500},
  {:finished, 1, 1, {:moved, "c@h"}, 5_000_000_000},
  {:finished, 2, 1, :retry_same, 0},
  {:finished, 3, 1, :stopping, 0},
  {:finished, 4, 2, {:displaced, :store}, 0},
  {:finished, 5, 1, :untouched, 0},
  {:finished, 6, 1, :gone, 0},
  {:finished, 7, 1, :lost_race, 0},
  {:finished, 8, 1, {:untouched, :store}, 0},
  {:finished, 9, 1, :not_stored, 0},
  {:finished, 10, 1, :not_storable, 0},
  {:finished, 11, 1, :stop_failed, 0},
  {:stopped, 3},
  {:released, 4},
  {:node_down, "c@h"},
  :cancel
]

spec = %{
  supervisor: "MyApp.Durable",
  storage: "s3://bucket/myapp/",
  count: 3,
  modules: ["MyApp.A", "MyApp.B"],
  config: config
}

records =
  for {module, sticky, priority} <- [{0, 0, 0}, {1, 1, 10}, {0, 1, -5}],
      into: <<>>,
      do: <<module::32, sticky::32, priority::signed-32>>

supervisor = %{
  name: "MyApp.Durable",
  generation: "1.2",
  started_at_ms: 1_700_000_000_000,
  servers: 500,
  draining: true
}

messages = [
  announce: [pid, %{release: "0.1.0", accepting: true}],
  welcome: [pid, %{release: "0.1.0"}],
  drain_open: [7, pid, spec],
  opened: [7],
  servers: [7, 0, records],
  view: [7, 1, 1, 1_700_000_001_000, [node]],
  # What a node answers when it is asked.
  view_asked: [
    7,
    1,
    1,
    1_700_000_001_000,
    [Map.merge(node, %{counted_at_ms: 1_700_000_000_456, missing: [0, 1]})]
  ],
  drain_start: [7, 29_500],
  started: [7],
  orders: [7, [{:start, 0, "b@h", 1, 15_000}, {:release, 4}, :finish]],
  events: [7, events],
  keepalive: [7],
  progress: [7, progress],
  report: [7, report],
  drain_close: [18_446_744_073_709_551_615],
  refuse_unknown_drain: [7, :unknown_drain],
  refuse_version: [nil, {:version, 2, 1}],
  refuse_invalid: [7, {:invalid, ["timeout_ms: got 0, takes 1 to 86400000"]}],
  refuse_full: [7, {:full, "drains", 100}],
  refuse_out_of_order: [7, {:out_of_order, "servers from 5000"}],
  describe: [1, pid],
  description: [1, %{release: "0.1.0", now_ms: 1_700_000_001_000, supervisors: [supervisor]}],
  drain_request: [2, pid, %{supervisor: "MyApp.Durable", timeout_ms: nil, dry_run: true}],
  drain_step: [2, progress],
  drain_done: [2, report],
  plan_request: [3, pid, %{supervisor: "MyApp.Durable", timeout_ms: 5_000, dry_run: true, plan: true}],
  plan: [3, plan],
  description_cordoned: [
    4,
    %{
      release: "0.2.0",
      now_ms: 1_700_000_001_000,
      supervisors: [
        %{name: "MyApp.Durable", generation: nil, started_at_ms: nil, servers: 7, draining: true, cordoned: true}
      ],
      knows: ["rebalance_settings"]
    }
  ],
  cordon_request: [5, pid, %{supervisor: nil, cordon: true}],
  uncordon_request: [6, pid, %{supervisor: "MyApp.Durable", cordon: false}],
  cordon_done: [5, %{supervisors: ["MyApp.Durable"]}],
  move_request: [7, pid, %{supervisor: "MyApp.Durable", key: "room/1", to: "c@h", timeout_ms: nil}],
  move_done: [7, %{from: "b@h", to: "c@h", gap_us: 21_500, attempts: 1}],
  rebalance_request: [8, pid, %{supervisor: "MyApp.Durable", dry_run: true, timeout_ms: 5_000}],
  rebalance_request_settings: [
    9,
    pid,
    %{
      supervisor: "MyApp.Durable",
      dry_run: false,
      timeout_ms: nil,
      after_ms: 0,
      tolerance: 0.1,
      min_servers: 50,
      max_per_second: 5
    }
  ],
  announce_goals: [pid, %{release: "0.2.0", accepting: true, goals: ["drain", "rebalance"]}],
  rebalance_open: [7, pid, %{spec | config: rebalance}],
  rebalance_progress: [7, Map.put(progress, :excess, 34)],
  waiting_progress: [7, Map.put(progress, :waits_for, :limit)],
  rebalance_report: [7, Map.put(report, :balance, balance)],
  # A key that a later release may add.
  keys_of_later: [pid, %{release: "9.0", accepting: false, zone: "x"}]
]

kind = fn
  :keys_of_later -> :announce
  :view_asked -> :view
  :plan_request -> :drain_request
  :description_cordoned -> :description
  :uncordon_request -> :cordon_request
  :announce_goals -> :announce
  :rebalance_request_settings -> :rebalance_request
  :rebalance_progress -> :progress
  :waiting_progress -> :progress
  :rebalance_report -> :report
  name -> if String.starts_with?("#{name}", "refuse"), do: :refuse, else: name
end

cases =
  for {name, fields} <- messages do
    # Minor version 2 is how distribution writes atoms.
    bytes =
      :erlang.term_to_binary(List.to_tuple([:durable_handoff, 1, kind.(name) | fields]),
        minor_version: 2
      )

    ~s(    {"name": "#{name}", "hex": "#{Base.encode16(bytes, case: :lower)}"})
  end

IO.puts("""
{
  "origin": "test/vectors/wire/generate.exs on OTP #{System.otp_release()}, Elixir #{System.version()}",
  "cases": [
#{Enum.join(cases, ",\n")}
  ]
}\
""")
