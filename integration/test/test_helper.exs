:ok = Cluster.start_distribution()
:ok = Recorded.start()
# Upper bounds, far from what a test takes: on a busy machine any process may be held for seconds.
# `@tag stand_in_only: "why"`: cannot hold on the real DurableServer. VERIFIED.md lists them.
exclude = if System.get_env("DURABLE_SERVER") == "external", do: [:stand_in_only], else: []
ExUnit.start(exclude: exclude, assert_receive_timeout: 30_000, timeout: 180_000)
