[
  line_length: 120,
  inputs: ["{mix,.formatter}.exs", "mix/**/*.exs", "{config,lib,test}/**/*.{ex,exs}"]
]
