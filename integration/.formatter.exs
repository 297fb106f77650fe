[
  line_length: 120,
  inputs: ["{mix,.formatter}.exs", "{config,lib,page.d,test}/**/*.{ex,exs}"]
]
