# Upper bounds, far above the usual time of a test: on a busy machine any process may be delayed for seconds.
ExUnit.start(assert_receive_timeout: 30_000, timeout: 300_000)
