# Upper bounds, far from what a test takes: on a busy machine any process may be held for seconds.
ExUnit.start(assert_receive_timeout: 30_000, timeout: 300_000)
